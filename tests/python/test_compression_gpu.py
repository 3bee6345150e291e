"""Statistics, factors and folding on a GPU against the same on the CPU."""

import afm
import numpy as np
import pytest
import torch
from afm.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CARDINALITIES = [3, 70_000, 700, 20]  # the second in more than one piece, and blocks on either side of the bus
RECIPES = {
    "energy": Recipe(metric=False, policy="energy", joint=False, fold=False),
    "loss": Recipe(tiers=4),
    "units": Recipe(units=True, embedding_bits="int8", mlp_bits="int8"),
    "svd": Recipe(metric=False, policy="uniform", method="svd"),
}


def clicks(rows: int = 30_000) -> afm.Dataset:
    random = np.random.default_rng(1)
    columns = [(random.random(rows) ** 3 * size).astype(np.int32) for size in CARDINALITIES]
    genres = np.stack([random.integers(0, 9, rows), random.integers(-1, 9, rows), random.integers(-1, 9, rows)], 1)
    fields = [afm.FieldSpec(name=f"f{f}", cardinality=size) for f, size in enumerate(CARDINALITIES)]
    fields.append(afm.FieldSpec(name="genres", kind="multi", cardinality=9, max_values=3))
    fields.append(afm.FieldSpec(name="price", kind="numeric"))
    ids = np.concatenate([np.stack(columns, 1), genres.astype(np.int32)], 1)
    dense = random.normal(size=(rows, 1)).astype(np.float32)
    label = (random.random(rows) < 0.3).astype(np.float32)
    return afm.Dataset.from_tensors(afm.Schema(fields=fields), ids, dense, label=label)


ROWS = clicks()


def logits(model: afm.Model, rows: afm.Dataset, count: int) -> torch.Tensor:
    batch = rows.range(0, count)
    with torch.no_grad():
        return model(batch.ids, batch.dense)


def model_of(kind) -> afm.Model:
    torch.manual_seed(3)
    model = kind(ROWS.schema, embedding_dim=8, hidden=[48, 32], init_std=0.5)
    model.train()
    logits(model, ROWS, 4096)  # batch norm has means and variances then
    return model.eval()


def measured(model: afm.Model, rows: afm.Dataset, recipe: Recipe) -> afm.Statistics:
    return afm.collect_statistics(
        model, rows, whole_training_set=True, metric=recipe.metric, input_moments=recipe.units, batch_size=3000
    )


def assert_close(a: torch.Tensor, b: torch.Tensor, what: str, tolerance: float) -> None:
    assert a.device.type == "cpu", what
    error = (a - b).abs().max().item() / max(b.abs().max().item(), 1e-30)
    assert error < tolerance, f"{what}: {error}"


@pytest.mark.parametrize("kind", [afm.DeepFM, afm.DCN, afm.WideDeep])
def test_a_gpu_counts_and_measures_what_the_cpu_does(kind) -> None:
    recipe = RECIPES["loss"]
    here = measured(model_of(kind), ROWS, recipe)
    there = measured(model_of(kind).to("cuda"), ROWS.to("cuda"), recipe)
    assert there.layers.keys() == here.layers.keys()
    for path, layer in here.layers.items():
        other = there.layers[path]
        for a, b in zip(other.id_counts, layer.id_counts, strict=True):
            assert torch.equal(a, b), path
        # Tables are exact; what passes through the model has its float32 rounding.
        tolerance = 1e-9 if layer.is_embedding else 1e-5
        for number, (a, b) in enumerate(zip(other.output, layer.output, strict=True)):
            assert a.count == b.count
            many = layer.is_embedding and number == len(CARDINALITIES)
            assert_close(a.mean, b.mean, path, 1e-5 if many else tolerance)
            assert_close(a.covariance(), b.covariance(), path, 1e-5 if many else tolerance)


@pytest.mark.parametrize("kind", [afm.DeepFM, afm.DCN, afm.WideDeep])
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_gpu_makes_the_small_model_that_the_cpu_makes(kind, name) -> None:
    recipe = RECIPES[name]
    model = model_of(kind)
    statistics = measured(model, ROWS, recipe)
    plan = recipe.plan(model, statistics, ratio=4.0)
    here = recipe.apply(model, statistics, plan)
    there = recipe.apply(model_of(kind).to("cuda"), statistics, plan)
    assert there.device.type == "cuda"
    expected, original = logits(here, ROWS, 5000), logits(model, ROWS, 5000)
    found = logits(there, ROWS.to("cuda"), 5000).cpu()
    assert_close(found, expected, name, 2e-3 if recipe.mlp_bits != "float" else 1e-4)
    assert (expected - original).abs().max() > 1e-2  # it is another model


def test_no_second_copy_of_a_table_is_made() -> None:
    schema = afm.Schema(fields=[afm.FieldSpec(name="user", cardinality=3_000_000), *ROWS.schema.fields[2:4]])
    columns = torch.stack([torch.arange(20_000), torch.arange(20_000) % 700, torch.arange(20_000) % 20], 1).int()
    rows = afm.Dataset.from_tensors(schema, columns, label=(torch.arange(20_000) % 2).float()).to("cuda")
    model = afm.DeepFM(schema, embedding_dim=32, hidden=[32], init_std=0.5).to("cuda")
    table = 3_000_000 * 33 * 4
    recipe = Recipe(metric=False, policy="energy", joint=True, fold=False)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    statistics = measured(model, rows, recipe)
    plan = recipe.plan(model, statistics, ratio=8.0)
    small = afm.factorize(model, statistics, plan)
    assert small.device.type == "cuda"
    assert torch.cuda.max_memory_allocated() - before < table

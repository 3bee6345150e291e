"""Models and rows that numerics break on go through everything that compresses: each stage gives finite numbers, keeps
its identities, or refuses in a sentence.
"""

import math
import re

import afm
import pytest
import torch
from afm.recipe import Recipe
from planted import planted_rows, small_schema

WIDE = [140, 20]  # from 128 columns on, products are taken in another way
KINDS = {
    "deepfm": {"hidden": WIDE},
    "dcn": {"hidden": WIDE},
    "dcn matrix": {"hidden": WIDE, "cross": "matrix"},
    "wide_deep": {"hidden": WIDE, "batch_norm": True},
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def linears(model):
    return [p for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name]


def tables(model):
    return [p for name, p in model.named_parameters() if "embedding" in name]


def biases(model):
    return [p for name, p in model.named_parameters() if p.dim() == 1 and "embedding" not in name]


def rank_one(model):
    for weight in linears(model):
        weight.copy_(torch.outer(torch.randn(weight.shape[0]), torch.randn(weight.shape[1])) / weight.shape[1])


def repeated_eigenvalues(model):
    for weight in linears(model):
        weight.copy_(torch.eye(*weight.shape))


def ill_conditioned(model):
    for weight in linears(model):
        u, s, v = torch.linalg.svd(weight.double(), full_matrices=False)
        weight.copy_((u * torch.logspace(0, -12, len(s), dtype=torch.float64)) @ v)


def large_means(model):
    for bias in biases(model):
        bias.add_(1e4)


def dead_units(model):
    for weight in linears(model)[:2]:
        weight[: len(weight) // 2] = 0
    for bias in biases(model)[:2]:
        bias[: len(bias) // 2] = -1


def all_dead(model):
    linears(model)[0].zero_()
    for bias in biases(model):
        bias.fill_(-1)


def scaled(size):
    def change(model):
        for parameter in model.parameters():
            parameter.mul_(size)

    change.__name__ = f"times_{size}"
    return change


def zeros(model):
    for parameter in model.parameters():
        parameter.zero_()


def equal_rows(model):
    for table in tables(model):
        table.copy_(table.mean())


def one_row_far_away(model):
    for table in tables(model):
        table.view(-1)[:4] = 1e5


def unchanged(model):
    pass


CHANGES = [
    unchanged,
    rank_one,
    repeated_eigenvalues,
    ill_conditioned,
    large_means,
    dead_units,
    all_dead,
    zeros,
    equal_rows,
    one_row_far_away,
    scaled(1e-40),
    scaled(1e-12),
    scaled(1e5),
    scaled(1e30),
]


def only_rows(count):
    def change(rows):
        return {name: value[:count].clone() for name, value in rows.items()}

    change.__name__ = f"{count}_rows"
    return change


def one_row_repeated(rows):
    return {name: value[:1].expand_as(value).contiguous() for name, value in rows.items()}


def many_rows(rows):
    return rows


def hostile(kind, change, rows, dtype, device):
    torch.manual_seed(3)
    model = afm.make_model(kind.split()[0], small_schema(), embedding_dim=6, **KINDS[kind])
    with torch.no_grad():
        for table in tables(model):
            table.normal_()
        change(model)
    data = rows(planted_rows(1, 300))
    data["label"][0] = 1 - data["label"][-1]
    dataset = afm.Dataset.from_tensors(small_schema(), **data)
    return model.to(device=device, dtype=dtype).eval(), dataset


def finite(values) -> bool:
    return all(torch.isfinite(torch.as_tensor(value, dtype=torch.float64)).all() for value in values)


def holds(model, dataset) -> bool:
    return finite([afm.predict(model, dataset)]) and finite(model.state_dict().values())


def budgets(statistics):
    yield {"energy": 0.9}
    yield {"ratio": 2.0, "policy": "uniform"}
    yield {"ratio": 2.0}


def check_recipe(model, dataset, statistics, recipe, **budget):
    plan = recipe.plan(model, statistics, **budget)
    small = recipe.apply(model, statistics, plan)
    assert holds(small, dataset)
    assert finite([afm.predicted_logloss(statistics, plan, model=model)])
    steps = afm.refit(small, model, dataset, statistics)
    assert finite([each for step in steps for each in (step.kl_before, step.kl_after)])
    assert holds(small, dataset)


def check_all(model, dataset):
    statistics = afm.collect_statistics(model, dataset, metric=True, input_moments=True)
    before = afm.predict(model, dataset).double()
    widest = {name: full_rank(layer) for name, layer in statistics.layers.items()}
    same = afm.predict(afm.factorize(model, statistics, widest), dataset).double()
    eps = 1e-3 if next(model.parameters()).dtype == torch.float32 else 1e-6
    assert (same - before).abs().max() <= eps * max(before.abs().max().item(), 1e-30)
    for budget in budgets(statistics):
        try:
            plan = afm.plan_ranks(statistics, **budget)
        except ValueError as refusal:
            assert "budget" in str(refusal) or "must" in str(refusal)
            continue
        for line in afm.summarize(statistics, plan):
            assert finite([line.kept_energy, line.predicted_mse, line.predicted_logloss])
            assert line.predicted_mse >= 0 and -1e-9 <= line.kept_energy <= 1 + 1e-9
        for method in ("mimic", "svd"):
            assert holds(afm.factorize(model, statistics, plan, method=method), dataset)
    check_recipe(model, dataset, statistics, Recipe(units=True, tiers=3), ratio=2.0)


def full_rank(layer):
    if layer.is_embedding:
        return [layer.embedding_dim] * len(layer.cardinalities)
    return min(layer.in_features, layer.out_features)


# Their outputs, or the squares of these, leave the numbers.
MAY_REFUSE = {"times_100000.0", "times_1e+30"}
REFUSALS = "outputs that are not finite|values whose squares are beyond float64"


def cases():
    """Every change of every kind in float32; in float64, and with few rows, of one kind."""
    for kind in KINDS:
        for change in CHANGES:
            yield kind, change, many_rows, torch.float32
    for change in CHANGES:
        yield "deepfm", change, many_rows, torch.float64
    for rows in (only_rows(3), one_row_repeated):
        for change in (unchanged, rank_one, dead_units):
            yield "dcn", change, rows, torch.float32


def name_of(value) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("kind", "change", "rows", "dtype"), list(cases()), ids=name_of)
def test_every_stage_gives_finite_numbers_or_refuses_in_a_sentence(kind, change, rows, dtype, device):
    model, dataset = hostile(kind, change, rows, dtype, device)
    try:
        check_all(model, dataset)
    except afm.DataError as refusal:
        assert change.__name__ in MAY_REFUSE
        assert re.search(REFUSALS, str(refusal))


def test_control_a_weight_that_is_not_finite_is_found():
    model, dataset = hostile("deepfm", unchanged, many_rows, torch.float32, "cpu")
    assert holds(model, dataset)
    with torch.no_grad():
        linears(model)[-1][0, 0] = math.nan
    assert not holds(model, dataset)

"""What a training step on a GPU costs in the forms that have no kernels of their own, beside a dense DeepFM's.

    python benchmarks/train_forms_gpu.py --rows 1.3e6 --batches 4096 65536

DeepFM of Criteo's shape as in train_gpu.py, bf16, recorded steps: dense; with its rows streamed from the CPU's memory;
as factors at an eighth of the parameters (with bases, and folded), what fine-tuning after compression trains; and dense
with its last three fields of up to three values. Row-wise Adagrad where that has kernels (dense), and Adam.
"""

from __future__ import annotations

import argparse
import statistics

import afm
import torch
from afm.recipe import Recipe
from train_gpu import DIM, HIDDEN, cardinalities_of, clicks, schema_of

MULTI = 3  # the last fields, each of so many values at most


def with_lists(ids: torch.Tensor) -> torch.Tensor:
    """Three slots for each of the last fields, a third of the added ones empty."""
    generator = torch.Generator("cuda").manual_seed(2)
    single, last = ids[:, :-MULTI], ids[:, -MULTI:]
    columns = [single]
    for field in range(MULTI):
        others = torch.stack([last[:, field].roll(shift + 1) for shift in range(2)], 1)
        empty = torch.rand(others.shape, generator=generator, device="cuda") < 1 / 3
        columns += [last[:, field : field + 1], others.masked_fill(empty, -1)]
    return torch.cat(columns, 1)


def multi_schema(cardinalities: list[int]) -> afm.Schema:
    fields = [afm.FieldSpec(name=f"f{i}", cardinality=size) for i, size in enumerate(cardinalities[:-MULTI])]
    for i, size in enumerate(cardinalities[-MULTI:]):
        fields.append(afm.FieldSpec(name=f"list{i}", kind="multi", cardinality=size, max_values=3))
    return afm.Schema(fields=fields)


def deepfm(schema: afm.Schema) -> afm.Model:
    return afm.DeepFM(schema, embedding_dim=DIM, hidden=HIDDEN, batch_norm=False, init_std=0.1)


def compressed(model: afm.Model, dataset: afm.Dataset) -> tuple[afm.Model, afm.Model]:
    recipe = Recipe(metric=False, policy="energy", fold=False)
    found = afm.collect_statistics(model, dataset, max_rows=100_000, batch_size=20_000)
    factors = afm.factorize(model, found, recipe.plan(model, found, ratio=8.0))
    return factors, afm.fold(factors).model


def seconds_of(model: afm.Model, rows: afm.Dataset, valid: afm.Dataset, batch: int, **options) -> float:
    """Of a step: median over the epochs after the first."""
    history = afm.train(
        model,
        rows,
        valid,
        batch_size=batch,
        device="cuda",
        precision="bf16",
        schedule="constant",
        epochs=4,
        patience=0,
        **options,
    )
    return statistics.median(epoch.seconds for epoch in history.epochs[1:]) / -(-len(rows) // batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=1.3e6)
    parser.add_argument("--batches", type=int, nargs="+", default=[4096, 65536])
    parser.add_argument("--count", type=float, default=2e6)
    options = parser.parse_args()
    print(torch.cuda.get_device_name(), torch.__version__, "\n")
    cardinalities = cardinalities_of(int(options.rows))
    ids, label = clicks(cardinalities, int(options.count))
    schema, lists = schema_of(cardinalities), multi_schema(cardinalities)
    on_cpu = afm.Dataset.from_tensors(schema, ids.cpu(), label=label.cpu())
    resident = on_cpu.to("cuda")
    many = afm.Dataset.from_tensors(lists, with_lists(ids).cpu(), label=label.cpu()).to("cuda")
    dense = deepfm(schema).to("cuda")
    factors, folded = compressed(dense, resident)
    cases = {
        "dense": (dense, resident, {"optimizer": "adagrad"}),
        "dense, rows streamed": (dense, on_cpu, {"optimizer": "adagrad", "data": "streamed"}),
        "dense, Adam": (dense, resident, {}),
        "factors with bases, Adam": (factors, resident, {}),
        "factors, folded, Adam": (folded, resident, {}),
        "dense, three fields of lists, Adam": (deepfm(lists), many, {}),
    }
    print("| batch | form | ms a step | M rows/s | against dense |\n|--:|---|--:|--:|--:|", flush=True)
    for batch in options.batches:
        first = None
        for name, (model, rows, more) in cases.items():
            valid = rows.range(0, 4096)
            valid_set = afm.Dataset.from_tensors(model.schema, valid.ids.cpu(), label=valid.label.cpu())
            seconds = seconds_of(model, rows, valid_set, batch, **more)
            first = first or seconds
            ratio = f"{seconds / first:.2f}x"
            print(f"| {batch:,} | {name} | {seconds * 1e3:.2f} | {batch / seconds / 1e6:.1f} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()

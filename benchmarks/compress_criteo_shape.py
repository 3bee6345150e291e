"""Time and memory of a whole compression at Criteo's shape: statistics with the metric, plan, factors, fold.

    python benchmarks/compress_criteo_shape.py

DeepFM with 39 fields of 50 to 200,000 values (984,750 rows in all), width 16, hidden 400-400-400; 200,000 calibration
rows with power-law ids. Weights and labels are random: only time and memory are looked at.
"""

from __future__ import annotations

import resource
import time

import afm
import numpy as np
import torch
from afm.recipe import Recipe

ROWS = 200_000
CARDINALITIES = [200_000] * 4 + [20_000] * 8 + [2_000] * 12 + [50] * 15
RATIO = 10.0


def clicks() -> afm.Dataset:
    random = np.random.default_rng(0)
    columns = [np.minimum(size * random.random(ROWS) ** 4, size - 1) for size in CARDINALITIES]
    schema = afm.Schema([afm.FieldSpec(name=f"field{j}", cardinality=size) for j, size in enumerate(CARDINALITIES)])
    label = (random.random(ROWS) < 0.25).astype(np.float32)
    return afm.Dataset.from_tensors(schema, np.stack(columns, 1).astype(np.int32), label=label)


def megabytes() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    torch.manual_seed(0)
    dataset = clicks()
    model = afm.DeepFM(dataset.schema, embedding_dim=16, hidden=[400, 400, 400], init_std=0.1)
    print(f"model {afm.byte_count(model) / 1e6:.1f} MB, process {megabytes():.0f} MB before")
    recipe, started = Recipe(tiers=4), time.perf_counter()
    last = started

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        print(f"{stage} {now - last:.1f} s", flush=True)
        last = now

    statistics = afm.collect_statistics(model, dataset, metric=True)
    lap("statistics")
    plan = recipe.plan(model, statistics, ratio=RATIO)
    lap("plan")
    small = recipe.apply(model, statistics, plan)
    lap("factors and fold")
    print(f"in all {last - started:.1f} s, at most {megabytes():.0f} MB; {afm.byte_count(small) / 1e6:.1f} MB after")


if __name__ == "__main__":
    main()

"""Time and memory of a whole compression at Criteo's shape, by stage, on a CPU or a GPU.

    python benchmarks/compress.py                                                       # 1 M rows of the table
    python benchmarks/compress.py --device cuda --rows 1e6 33e6 --calibration 1e6 --batch 65536

DeepFM with 39 fields, width 16, hidden 400-400-400, calibration rows with power-law ids on the device. Weights and
labels are random: only time and memory are looked at. Two recipes: ranks by energy, and the default (the
metric of the logloss, tiers, wide weights in the latents, fold). Beside them what one writes without a library: a
truncated SVD of each table and each layer at our ranks, by torch.linalg.svd and by torch.pca_lowrank; it looks
at no data, plans nothing, and makes no model.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import time

import afm
import torch
from afm.recipe import Recipe
from train_gpu import cardinalities_of, schema_of

RATIO = 8.0
RECIPES = {
    "energy": Recipe(metric=False, policy="energy", joint=False, fold=False),
    "default": Recipe(tiers=4),
}


def clicks(cardinalities: list[int], rows: int, device: str) -> afm.Dataset:
    random = torch.Generator().manual_seed(0)
    size = torch.tensor(cardinalities)
    share = torch.rand(rows, len(cardinalities), generator=random)
    ids = torch.minimum(((size + 1.0) ** share - 1).int(), size.int() - 1)
    label = (torch.rand(rows, generator=random) < 0.25).float()
    return afm.Dataset.from_tensors(schema_of(cardinalities), ids, label=label).to(device)


def now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


class Memory:
    """Megabytes above what was there: on a GPU its own, else the most that the process has held."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device != "cpu"
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self.before = self.most()

    def most(self) -> float:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    def risen(self) -> float:
        return self.most() - self.before


def compress(model: afm.Model, dataset: afm.Dataset, recipe: Recipe, batch: int, device: str):
    """Seconds of each stage, megabytes, the plan."""
    memory, laps = Memory(device), [now(device)]
    found = afm.collect_statistics(model, dataset, metric=recipe.metric, batch_size=batch, whole_training_set=True)
    laps.append(now(device))
    plan = recipe.plan(model, found, ratio=RATIO)
    laps.append(now(device))
    small = afm.factorize(model, found, plan, method=recipe.method)
    laps.append(now(device))
    if recipe.fold:
        small = afm.fold(small).model
    laps.append(now(device))
    stages = [after - before for before, after in itertools.pairwise(laps)]
    return stages, memory.risen(), plan, afm.byte_count(small)


def truncations(model: afm.Model, plan: afm.RankPlan, by: str, device: str) -> tuple[float, float]:
    """Seconds and megabytes of truncating every table and layer that the plan names."""
    memory, started = Memory(device), now(device)
    state = model.state_dict()
    for path, layer in plan.items():
        weight = state[f"{path}.weight"]
        pieces = weight.split(cardinalities(model)) if path == "embedding" else [weight]
        for piece, rank in zip(pieces, layer.ranks, strict=False):
            kept = min(rank, *piece.shape)
            if kept == 0:
                continue
            if by == "svd":
                u, s, v = torch.linalg.svd(piece, full_matrices=False)
                _ = u[:, :kept] * s[:kept], v[:kept]
            else:
                u, s, v = torch.pca_lowrank(piece, q=kept, center=False)
                _ = u * s, v
    return now(device) - started, memory.risen()


def cardinalities(model: afm.Model) -> list[int]:
    return [field.cardinality for field in model.schema.fields]


def measure(rows: int, options) -> None:
    device = options.device
    dataset = clicks(cardinalities_of(rows), int(options.calibration), device)
    torch.manual_seed(0)
    model = afm.DeepFM(dataset.schema, embedding_dim=16, hidden=[400, 400, 400], init_std=0.1).to(device)
    size = afm.byte_count(model) / 1e6
    plan = None
    for name, recipe in RECIPES.items():
        runs = [compress(model, dataset, recipe, options.batch, device) for _ in range(options.repeats)]
        stages = [statistics.median(run[0][stage] for run in runs) for stage in range(4)]
        total = statistics.median(sum(run[0]) for run in runs)
        _, memory, own, after = runs[-1]
        plan = plan or own
        shown = " | ".join(f"{seconds:.2f}" for seconds in [*stages, total])
        print(f"| {rows / 1e6:.1f} M | {name} | {shown} | {memory:.0f} of {size:.0f} | {after / 1e6:.0f} |", flush=True)
    for by in ("svd", "pca_lowrank"):
        try:
            seconds, memory = truncations(model, plan, by, device)
        except RuntimeError as error:  # some solvers refuse tables that tall
            print(f"| {rows / 1e6:.1f} M | {by} alone: {str(error).splitlines()[0][:60]} | | | | | | | |", flush=True)
            continue
        print(
            f"| {rows / 1e6:.1f} M | {by} alone | | | {seconds:.2f} | | {seconds:.2f} | {memory:.0f} of {size:.0f} | |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6])
    parser.add_argument("--calibration", type=float, default=2e5)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if options.device != "cpu" else f"{torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}; {options.calibration / 1e6:.1f} M calibration rows; seconds\n")
    print("| table rows | recipe | statistics | plan | factors | fold | all | MB more than the model | MB after |")
    print("|--:|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for rows in options.rows:
        measure(int(rows), options)


if __name__ == "__main__":
    main()

"""What low rank alone does to the MLP of a trained DeepFM: KL(base || compressed), nothing trained on.

    python benchmarks/layer_kl.py frappe --seeds 1 2 3 4 --ranks 8 16

One hidden layer at a time gets the rank, then all of them; tables stay as they are. Compared are weight-SVD, AFM
(eigenvectors of the output's covariance) and AFM in the Gauss-Newton metric of the logloss, each with its best bias,
then the first and the last again with every refit of `afm.refit` (layers by regression, batch norm, two-parameter
calibration of the logit; training rows, no labels). The mean KL of the click probabilities is taken over the test rows.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from pathlib import Path

import afm
import numpy as np
import torch
from afm.judging import churn
from afm.recipe import measure

MODEL = {"embedding_dim": 10, "hidden": [400, 400, 400], "dropout": 0.2}
TRAINING = {"epochs": 100, "embedding_l2": 0.05}
LAYERS = {"layer 1": [0], "layer 2": [1], "layer 3": [2], "all three": [0, 1, 2]}
METHODS = {  # method, metric, refitted
    "weight-SVD": ("svd", False, False),
    "AFM": ("mimic", False, False),
    "AFM with the metric": ("mimic", True, False),
    "weight-SVD, refitted": ("svd", False, True),
    "AFM with the metric, refitted": ("mimic", True, True),
}
RATIOS = ("AFM with the metric", "AFM with the metric, refitted")  # of the first column

Divergences = dict[tuple[int, str, str], float]  # (rank, layers, method) -> mean KL


def divergences(folder: Path, seed: int, ranks: list[int], device: str) -> Divergences:
    train_set, valid_set, test_set = (
        afm.Dataset.open(folder, split).to(device) for split in ("train", "valid", "test")
    )
    torch.manual_seed(seed)
    base = afm.DeepFM(train_set.schema, **MODEL)
    afm.train(base, train_set, valid_set, seed=seed, device=device, **TRAINING)
    measured = {metric: measure(base, train_set, metric=metric) for metric in (False, True)}
    logits = logits_of(base, test_set)
    rate = float(np.asarray(test_set.range(0, len(test_set)).label.cpu()).mean())
    found = {}
    for rank, (which, layers), (name, how) in itertools.product(ranks, LAYERS.items(), METHODS.items()):
        method, metric, refitted = how
        plan = {f"mlp.layers.{i}": afm.LayerPlan(ranks=[rank]) for i in layers}
        small = afm.factorize(base, measured[metric], plan, method=method).to(device)
        if refitted:
            afm.refit(small, base, train_set, measured[True])
        found[rank, which, name] = churn(logits, logits_of(small, test_set), rate)["mean_kl"]
    return found


def logits_of(model: afm.Model, dataset: afm.Dataset) -> np.ndarray:
    return np.asarray(afm.predict(model, dataset).double().cpu())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="dataset folder, as afm prepare writes it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    runs = []
    for seed in arguments.seeds:
        runs.append(divergences(arguments.folder, seed, arguments.ranks, arguments.device))
        print(f"seed {seed} done", flush=True)
    print(
        "\n| rank | of | "
        + " | ".join(METHODS)
        + " | "
        + " | ".join(f"{name}, of weight-SVD's" for name in RATIOS)
        + " |"
    )
    print("|--:|---|" + "--:|" * (len(METHODS) + len(RATIOS)))
    for rank, which in itertools.product(arguments.ranks, LAYERS):
        means = {name: statistics.mean(run[rank, which, name] for run in runs) for name in METHODS}
        cells = [f"{mean:.5f}" for mean in means.values()]
        cells += [f"{means[name] / means['weight-SVD']:.2f}" for name in RATIOS]
        print(f"| {rank} | {which} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""Quality on Frappe, with the published settings: base models, and DeepFM at a third of its parameters.

    afm prepare train_recon.csv.gz --valid valid.csv.gz --test test.csv.gz --out frappe
    python benchmarks/frappe.py frappe --seeds 1 2 3 --device cpu --out frappe.json

Settings (BARS / FuxiCTR): Adam 1e-3, batch 4096, embedding 10, hidden 400-400-400 with batch norm and ReLU, embeddings
N(0, 1e-4), L2 on whole tables; learning rate x0.1 after an epoch without a better validation AUC, stop after two.
Compression of DeepFM: energy policy and, as the row that shows why a policy is needed, one uniform rank ratio; each
one-shot and trained on, beside the base trained on for the same epochs. Validation picks the epoch; test is read once.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path

import afm
import torch

COMMON = {"embedding_dim": 10, "hidden": [400, 400, 400], "batch_norm": True}
MODELS = {
    "deepfm": ({**COMMON, "dropout": 0.2}, 0.05),
    "dcn": ({**COMMON, "dropout": 0.2, "cross_layers": 3}, 0.05),
    "wide_deep": ({**COMMON, "dropout": 0.6}, 0.1),
}
EXTRA_EPOCHS = 8


class Frappe:
    """The three splits, on the device."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = device
        self.train, self.valid, self.test = (afm.Dataset.open(folder, split) for split in ("train", "valid", "test"))

    def fit(self, model: afm.Model, l2: float, seed: int, **options) -> float:
        """Trains; returns the seconds."""
        started = time.perf_counter()
        options = {"epochs": 100, **options}
        afm.train(model, self.train, self.valid, embedding_l2=l2, seed=seed, device=self.device, **options)
        return time.perf_counter() - started

    def judge(self, model: afm.Model) -> dict:
        metrics = afm.evaluate(model.to(self.device), self.test.to(self.device))
        return {"auc": metrics.auc, "logloss": metrics.logloss, "parameters": afm.parameter_count(model)}


def run_seed(data: Frappe, name: str, seed: int, ratio: float) -> dict[str, dict]:
    """Every row of the table for one model and seed."""
    options, l2 = MODELS[name]
    torch.manual_seed(seed)
    base = afm.make_model(name, data.train.schema, **options)
    seconds = data.fit(base, l2, seed)
    rows = {"base": {**data.judge(base), "seconds": seconds}}
    if name != "deepfm":
        return rows
    extra = {"epochs": EXTRA_EPOCHS, "schedule": "linear", "patience": 0}
    longer = copy.deepcopy(base)
    data.fit(longer, l2, seed, **extra)
    rows["base, trained on"] = data.judge(longer)
    started = time.perf_counter()
    measured = afm.collect_statistics(base, data.train.to(data.device), whole_training_set=True)
    for policy in ("energy", "uniform"):
        plan = afm.plan_ranks(measured, ratio=ratio, policy=policy)
        small = afm.factorize(base, measured, plan)
        seconds = time.perf_counter() - started
        rows[f"{policy}, one-shot"] = {**data.judge(small), "seconds": seconds}
        data.fit(small, l2, seed, **extra)
        rows[f"{policy}, trained on"] = data.judge(small)
        started = time.perf_counter()
    return rows


def table(runs: dict[str, list[dict[str, dict]]]) -> str:
    """Markdown: mean over seeds, and the spread (standard deviation) of the AUC."""
    lines = ["| model | test AUC | spread | logloss | parameters |", "|---|--:|--:|--:|--:|"]
    for name, seeds in runs.items():
        for row in seeds[0]:
            aucs = [seed[row]["auc"] for seed in seeds]
            spread = statistics.stdev(aucs) if len(aucs) > 1 else 0.0
            logloss = statistics.mean(seed[row]["logloss"] for seed in seeds)
            parameters = statistics.mean(seed[row]["parameters"] for seed in seeds)
            lines.append(
                f"| {name}: {row} | {statistics.mean(aucs):.4f} | {spread:.4f} | {logloss:.4f} | {parameters:,.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--ratio", type=float, default=3.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("frappe.json"))
    arguments = parser.parse_args()
    data = Frappe(arguments.folder, arguments.device)
    runs: dict[str, list[dict[str, dict]]] = {}
    for name in arguments.models:
        for seed in arguments.seeds:
            rows = run_seed(data, name, seed, arguments.ratio)
            runs.setdefault(name, []).append(rows)
            for row, values in rows.items():
                print(f"{name} seed {seed}: {row}: {json.dumps(values)}", flush=True)
            arguments.out.write_text(json.dumps(runs, indent=2) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()

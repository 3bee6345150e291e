"""What the fast options of training cost in quality: DeepFM on Frappe, test AUC and logloss over seeds.

    python benchmarks/frappe_precision.py frappe --device cuda --seeds 1 2 3

`frappe` is the folder that `afm prepare` leaves (benchmarks/frappe.py says how). Published settings (BARS / FuxiCTR):
Adam 1e-3, batch 4096, embedding 10, hidden 400-400-400, batch norm, dropout 0.2, L2 0.05 on whole tables, learning
rate x0.1 after an epoch without a better validation AUC, stop after two. Each row changes the options that it names;
on the CPU those of a GPU alone are left out. Without batch norm and dropout, at width 16, hidden layers in bf16 are one
function on Hopper GPUs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import afm
import torch
from frappe import MODELS, Frappe

# The best of 19 by validation AUC: rates of 0.02 to 0.5, L2 (which falls on the rows of a batch alone) of 1e-4 to 0.1.
ADAGRAD = {"optimizer": "adagrad", "adagrad_learning_rate": 0.05, "embedding_l2": 0.05}
PLAIN = {"embedding_dim": 16, "batch_norm": False, "dropout": 0.0}  # of the model
VARIANTS: dict[str, dict] = {
    "float32, no recorded step": {"cuda_graph": False},
    "float32": {},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16"},
    "row-wise Adagrad": ADAGRAD,
    "row-wise Adagrad, bf16, atomics": {**ADAGRAD, "precision": "bf16", "deterministic": False},
    "batch 16,384, learning rate 2e-3": {"batch_size": 16384, "learning_rate": 2e-3},
    "no batch norm, no dropout, width 16": {"model": PLAIN},
    "the same, tf32": {"model": PLAIN, "precision": "tf32"},
    "the same, bf16": {"model": PLAIN, "precision": "bf16"},
}
OF_A_GPU = {"cuda_graph", "deterministic", "precision"}


def run(data: Frappe, seed: int, changed: dict) -> dict:
    options, l2 = MODELS["deepfm"]
    torch.manual_seed(seed)
    training = {name: value for name, value in changed.items() if name != "model"}
    model = afm.make_model("deepfm", data.train.schema, **{**options, **changed.get("model", {})})
    started = time.perf_counter()
    settings = {"epochs": 100, "embedding_l2": l2, "seed": seed, "device": data.device, **training}
    history = afm.train(model, data.train, data.valid, **settings)
    seconds = time.perf_counter() - started
    return {**data.judge(model), "seconds": seconds, "epochs": len(history.epochs)}


def line(name: str, seeds: list[dict]) -> str:
    def mean(of: str) -> float:
        return statistics.mean(seed[of] for seed in seeds)

    spread = statistics.stdev(seed["auc"] for seed in seeds) if len(seeds) > 1 else 0.0
    quality = f"{mean('auc'):.4f} | {spread:.4f} | {mean('logloss'):.4f}"
    return f"| {name} | {quality} | {mean('epochs'):.0f} | {mean('seconds'):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="ROW")
    arguments = parser.parse_args()
    data = Frappe(arguments.folder, arguments.device)
    print(f"{arguments.device}, torch {torch.__version__}, seeds {arguments.seeds}")
    print("| training | test AUC | spread | logloss | epochs | seconds |\n|---|--:|--:|--:|--:|--:|", flush=True)
    for name, changed in VARIANTS.items():
        if name not in arguments.only or (arguments.device == "cpu" and OF_A_GPU & set(changed)):
            continue
        print(line(name, [run(data, seed, changed) for seed in arguments.seeds]), flush=True)


if __name__ == "__main__":
    main()

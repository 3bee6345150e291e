"""Eight models at once against one after the other: afm.fit_many and afm.train, the same models and the same results.

    python benchmarks/fit_many.py --device cuda
    python benchmarks/fit_many.py --device cpu --shapes frappe --samples 100000 --epochs 1

DeepFM at two shapes, ids generated in memory, batch 4096, seeds 1 to 8. criteo: 39 fields of 1.3 M values, width 16,
400-400-400 without batch norm, row-wise Adagrad; frappe: 10 fields of 5,382 values, width 10, 400-400-400 with batch
norm and dropout, Adam on everything. Seconds are those of whole trainings, with all that a run does at its start and
validation after each epoch, but not the making of the models; medians of --rounds, each of which runs every line once
after one training that is not counted. On a GPU with a recorded step, and once without; --only takes the lines whose
name ends so.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import afm
import torch
from train_gpu import cardinalities_of, clicks, schema_of

MODELS, BATCH = 8, 4096
FRAPPE = [957, 4082, 7, 7, 2, 3, 2, 9, 80, 233]


@dataclass(frozen=True)
class Shape:
    cardinalities: list[int]
    model: dict
    training: dict


def shapes() -> dict[str, Shape]:
    return {
        "criteo": Shape(
            cardinalities_of(1_300_000),
            {"embedding_dim": 16, "hidden": [400, 400, 400], "batch_norm": False},
            {"optimizer": "adagrad"},
        ),
        "frappe": Shape(
            FRAPPE,
            {"embedding_dim": 10, "hidden": [400, 400, 400], "dropout": 0.2},
            {"embedding_l2": 0.05},
        ),
    }


class Case:
    def __init__(self, shape: Shape, samples: int, epochs: int, device: str) -> None:
        self.shape, self.device = shape, device
        self.schema = schema_of(shape.cardinalities)
        ids, labels = (tensor.cpu() for tensor in clicks(shape.cardinalities, samples, device))
        self.train_set = afm.Dataset.from_tensors(self.schema, ids, label=labels).to(device)
        self.valid_set = afm.Dataset.from_tensors(self.schema, ids[:20000], label=labels[:20000]).to(device)
        self.options = {"batch_size": BATCH, "epochs": epochs, "patience": 0, "device": device, **shape.training}
        self.rows = MODELS * epochs * samples

    def models(self) -> list[afm.Model]:
        models = []
        for seed in range(MODELS):
            torch.manual_seed(seed)
            models.append(afm.DeepFM(self.schema, **self.shape.model).to(self.device))
        return models

    def one_by_one(self, models: list[afm.Model], **options) -> list[float]:
        return [
            afm.train(model, self.train_set, self.valid_set, seed=seed, **self.options, **options).epochs[-1].valid_auc
            for seed, model in enumerate(models, 1)
        ]

    def at_once(self, models: list[afm.Model], **options) -> list[float]:
        seeds = list(range(1, len(models) + 1))
        histories = afm.fit_many(models, self.train_set, self.valid_set, seed=seeds, **self.options, **options)
        return [history.epochs[-1].valid_auc for history in histories]


def lines_of(case: Case) -> dict[str, Callable[[list[afm.Model]], list[float]]]:
    if case.device == "cpu":
        return {"one after the other": case.one_by_one, "at once": case.at_once}
    lines = {}
    forms = {
        "bf16": {"precision": "bf16"},
        "bf16, atomics": {"precision": "bf16", "deterministic": False},
        "tf32": {"precision": "tf32"},
    }
    for name, options in forms.items():
        lines[f"one after the other, {name}"] = lambda models, o=options: case.one_by_one(models, **o)
        lines[f"at once, {name}"] = lambda models, o=options: case.at_once(models, **o)
    plain = {"precision": "bf16", "cuda_graph": False}
    lines["one after the other, bf16, steps not recorded"] = lambda models: case.one_by_one(models, **plain)
    return lines


def measure(name: str, case: Case, rounds: int, only: str) -> None:
    lines = {line: work for line, work in lines_of(case).items() if line.endswith(only)}
    seconds: dict[str, list[float]] = {line: [] for line in lines}
    quality: dict[str, list[float]] = {}
    case.at_once(case.models()[:1])
    for _ in range(rounds):
        for line, work in lines.items():
            models = case.models()
            started = time.perf_counter()
            quality[line] = work(models)
            seconds[line].append(time.perf_counter() - started)
    first = next(iter(lines))
    for line in lines:
        took = statistics.median(seconds[line])
        print(
            f"| {name} | {line} | {took:.2f} | {case.rows / took / 1e6:.2f} | "
            f"{statistics.median(seconds[first]) / took:.2f}x | {statistics.mean(quality[line]):.5f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", nargs="+", choices=list(shapes()), default=list(shapes()))
    parser.add_argument("--samples", type=int, default=8 * 65536)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name(0) if arguments.device != "cpu" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}, libafm {afm.__version__}")
    print("| shape | 8 models | s | M rows/s | against the first | mean AUC |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for name in arguments.shapes:
        measure(
            name,
            Case(shapes()[name], arguments.samples, arguments.epochs, arguments.device),
            arguments.rounds,
            arguments.only,
        )


if __name__ == "__main__":
    main()

"""Training throughput of DeepFM on the CPU: libafm, a tight PyTorch loop, and FuxiCTR's own trainer, in turns.

    python benchmarks/train_cpu.py frappe --rounds 5
    python benchmarks/train_cpu.py --rows 1000000 --fuxictr-python build/fuxictr/bin/python
    python benchmarks/train_cpu.py --rows 33000000 --only libafm

With a dataset folder: its shape, embedding 10, dropout 0.2, L2 on the whole table; each round is one epoch of each.
Without: the shape of Criteo's display advertising challenge (13 numeric fields in 100 bins and 26 categorical ones,
`--rows` ids in all, drawn with p(v) ~ 1 / v, in memory), embedding 16, neither dropout nor L2; a round is 40 steps of
each, and FuxiCTR's trainer has its batches in memory. Both: batch 4096, 400-400-400, batch norm. The medians of the
rounds and their ratios are printed, and the share of this machine's float32 matrix rate. The tight loop is one fused
table, fused dense Adam and tensors in memory, without a DataLoader: the best that stock PyTorch offers on this model.
For FuxiCTR make an environment with `python -m venv build/fuxictr`, and in it
`build/fuxictr/bin/pip install torch==2.13.0 fuxictr==2.3.10 'polars<2'`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import afm
import numpy as np
import torch
from peers.peer_process import peer_epochs
from torch import nn

BATCH, HIDDEN, STEPS = 4096, [400, 400, 400], 40
# Ids of the 26 categorical fields of the Kaggle set, 33.8 million in all.
CRITEO = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10]
CRITEO += [5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572]


@dataclass
class Setting:
    train_set: afm.Dataset
    valid_set: afm.Dataset
    width: int
    dropout: float
    l2: float
    in_memory: bool


def criteo_cardinalities(rows: int) -> list[int]:
    """100 bins per numeric field, and the categorical fields with their largest ones cut to an equal size."""
    left, sizes = rows - 1300, dict(enumerate(CRITEO))
    for place, (field, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        sizes[field] = min(size, left // (len(CRITEO) - place))
        left -= sizes[field]
    return [100] * 13 + [sizes[field] for field in range(len(CRITEO))]


def criteo_setting(rows: int) -> Setting:
    sizes = criteo_cardinalities(rows)
    generator = torch.Generator().manual_seed(1)
    count = STEPS * BATCH
    columns = [torch.exp(torch.rand(count, generator=generator) * np.log(size)).int() for size in sizes]
    ids = torch.stack([column.clamp(1, size) - 1 for column, size in zip(columns, sizes, strict=True)], 1)
    label = (torch.rand(count, generator=generator) < 0.25).float()
    schema = afm.Schema([afm.FieldSpec(name=f"c{j}", cardinality=size) for j, size in enumerate(sizes)])
    train_set = afm.Dataset.from_tensors(schema, ids, label=label)
    return Setting(train_set, afm.Dataset.from_tensors(schema, ids[:BATCH], label=label[:BATCH]), 16, 0.0, 0.0, True)


def folder_setting(folder: Path) -> Setting:
    train_set, valid_set = (afm.Dataset.open(folder, split) for split in ("train", "valid"))
    few = valid_set.range(0, BATCH)
    valid_set = afm.Dataset.from_tensors(valid_set.schema, few.ids, label=few.label)
    return Setting(train_set, valid_set, 10, 0.2, 0.05, False)


class TightDeepFM(nn.Module):
    """DeepFM in stock PyTorch: one table for all fields, wide weights in its last column."""

    def __init__(self, cardinalities: list[int], width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Parameter(torch.randn(sum(cardinalities), width + 1) * 1e-4)
        self.register_buffer("starts", torch.tensor([0, *np.cumsum(cardinalities)[:-1]]))
        layers: list[nn.Module] = []
        for before, after in zip([len(cardinalities) * width, *HIDDEN[:-1]], HIDDEN, strict=True):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.mlp = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids + self.starts, self.table)
        values, wide = rows[:, :, : self.width], rows[:, :, self.width].sum(1)
        interaction = 0.5 * (values.sum(1).square() - values.square().sum(1)).sum(1)
        return wide + interaction + self.mlp(values.flatten(1)).squeeze(1) + self.bias


def tight_epoch(setting: Setting) -> Callable[[], float]:
    rows = setting.train_set.range(0, len(setting.train_set))
    ids, labels = rows.ids.long(), rows.label.clone()
    model = TightDeepFM(setting.train_set.schema.cardinalities, setting.width, setting.dropout)
    others = [parameter for name, parameter in model.named_parameters() if name != "table"]
    groups = [{"params": [model.table], "weight_decay": setting.l2}, {"params": others}]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    loss_of = nn.BCEWithLogitsLoss()

    def run() -> float:
        started = time.perf_counter()
        for index in torch.randperm(len(ids)).split(BATCH):
            optimizer.zero_grad(set_to_none=False)
            loss_of(model(ids[index]), labels[index]).backward()
            optimizer.step()
        return time.perf_counter() - started

    return run


class Afm:
    """One training run in a thread of its own, which goes on by an epoch per call.

    Validation is not in the seconds of an epoch; bringing every row of a table up to date at its end is. In Criteo's
    shape 160 steps warm up: Adam takes missed steps one by one until 128 steps are behind.
    """

    def __init__(self, setting: Setting, optimizer: str, rounds: int) -> None:
        model = afm.DeepFM(
            setting.train_set.schema, embedding_dim=setting.width, hidden=HIDDEN, dropout=setting.dropout
        )
        self.warm_up = 4 if setting.in_memory else 1
        options = {"epochs": self.warm_up + rounds + 1, "patience": 0, "batch_size": BATCH, "embedding_l2": setting.l2}
        self.go, self.done, self.seconds = threading.Semaphore(0), threading.Semaphore(0), 0.0

        def pause(progress: afm.Progress) -> None:
            if progress.finished:
                self.seconds = progress.finished.seconds
                self.done.release()
                self.go.acquire()

        def train() -> None:
            self.go.acquire()
            afm.train(model, setting.train_set, setting.valid_set, optimizer=optimizer, on_progress=pause, **options)

        threading.Thread(target=train, daemon=True).start()

    def __call__(self) -> float:
        self.go.release()
        self.done.acquire()
        return self.seconds


def fuxictr_epoch(python: str, setting: Setting, folder: Path) -> Callable[[], float]:
    train_set = setting.train_set
    rows = train_set.range(0, len(train_set))
    names = train_set.schema.id_field_names
    columns = {name: rows.ids[:, place].numpy() for place, name in enumerate(names)}
    settings = {
        "cardinalities": dict(zip(names, train_set.schema.cardinalities, strict=True)),
        "width": setting.width,
        "dropout": setting.dropout,
        "l2": setting.l2,
        "in_memory": setting.in_memory,
        "batch": BATCH,
        "batch_norm": True,
        "gpu": False,
    }
    return peer_epochs(python, "fuxictr_deepfm.py", {"label": rows.label.numpy(), **columns}, settings, folder)


def matrix_rate(width: int) -> float:
    """FLOP/s of the matrix products of one step, forward and backward, by themselves."""
    sizes = [width, *HIDDEN]
    x = [torch.randn(BATCH, size) for size in sizes]
    weights = [torch.randn(after, before) for before, after in itertools.pairwise(sizes)]

    def products() -> None:
        for place, weight in enumerate(weights):
            before, after = x[place], x[place + 1]
            torch.mm(before, weight.t())  # forward
            torch.mm(after.t(), before)  # gradient of the weight
            torch.mm(after, weight)  # gradient of the input

    products()
    taken = []
    for _ in range(15):
        started = time.perf_counter()
        products()
        taken.append(time.perf_counter() - started)
    return flop_of_step(width) / statistics.median(taken)


def flop_of_step(width: int) -> float:
    sizes = [width, *HIDDEN]
    return 6.0 * BATCH * sum(before * after for before, after in itertools.pairwise(sizes))


def peers_of(arguments: argparse.Namespace, setting: Setting, folder: Path) -> dict[str, Callable[[], float]]:
    makers = {
        "tight": ("tight PyTorch loop", lambda: tight_epoch(setting)),
        "libafm": ("libafm", lambda: Afm(setting, "adam", arguments.rounds)),
        "adagrad": ("libafm, row-wise Adagrad", lambda: Afm(setting, "adagrad", arguments.rounds)),
        "fuxictr": ("FuxiCTR 2.3.10", lambda: fuxictr_epoch(arguments.fuxictr_python, setting, folder)),
    }
    wanted = arguments.only or [key for key in makers if key != "fuxictr" or arguments.fuxictr_python]
    return {name: make() for key, (name, make) in makers.items() if key in wanted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="dataset folder, such as Frappe's; else Criteo's shape")
    parser.add_argument("--rows", type=int, default=1_000_000, help="ids in Criteo's shape")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["tight", "libafm", "adagrad", "fuxictr"], help="default: all")
    parser.add_argument("--fuxictr-python", help="Python of an environment with fuxictr")
    arguments = parser.parse_args()
    setting = folder_setting(arguments.folder) if arguments.folder else criteo_setting(arguments.rows)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        peers = peers_of(arguments, setting, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for run in peers.values():
            for _ in range(getattr(run, "warm_up", 1)):
                run()
        for round_number in range(arguments.rounds):
            for name, run in peers.items():
                taken = run()
                seconds[name].append(taken)
                print(f"round {round_number + 1}: {name}: {len(setting.train_set) / taken:,.0f} rows/s", flush=True)
    print_table(setting, seconds)


def print_table(setting: Setting, seconds: dict[str, list[float]]) -> None:
    rows, fields = len(setting.train_set), setting.train_set.schema.cardinalities
    steps = -(-rows // BATCH)
    rate, flop = matrix_rate(len(fields) * setting.width), flop_of_step(len(fields) * setting.width)
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"\n{rows:,} rows, {len(fields)} fields, {sum(fields):,} ids, {threads}")
    print(f"matrix products alone: {rate / 1e9:.0f} GFLOP/s, {flop / rate * 1e3:.0f} ms per step\n")
    print("| trainer | rows/s (median) | ms per step | share of the matrix rate | libafm against it |")
    print("|---|--:|--:|--:|--:|")
    ours = statistics.median(seconds["libafm"]) if "libafm" in seconds else float("nan")
    for name, values in seconds.items():
        median = statistics.median(values)
        share = steps * flop / rate / median
        print(f"| {name} | {rows / median:,.0f} | {median / steps * 1e3:.1f} | {share:.0%} | {median / ours:.2f}x |")


if __name__ == "__main__":
    main()

"""Training throughput of DeepFM on the CPU: libafm, a tight PyTorch loop, and FuxiCTR's own trainer, in turns.

    python benchmarks/train_cpu.py frappe --rounds 5
    python benchmarks/train_cpu.py frappe --rounds 5 --fuxictr-python build/fuxictr/bin/python

Each round runs one epoch of each over the training rows (batch 4096, embedding 10, 400-400-400, batch norm, dropout
0.2, L2 on the whole table); the medians of the rounds and their ratios are printed. The tight loop is one fused table,
fused Adam and tensors in memory, without a DataLoader: the best that stock PyTorch offers on this model. For FuxiCTR
make an environment with `python -m venv build/fuxictr`, and in it
`build/fuxictr/bin/pip install torch==2.13.0 fuxictr==2.3.10 'polars<2'`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import afm
import numpy as np
import torch
from torch import nn

BATCH, WIDTH, HIDDEN, DROPOUT, L2 = 4096, 10, [400, 400, 400], 0.2, 0.05


class TightDeepFM(nn.Module):
    """DeepFM in stock PyTorch: one table for all fields, wide weights in its last column."""

    def __init__(self, cardinalities: list[int]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(sum(cardinalities), WIDTH + 1) * 1e-4)
        self.register_buffer("starts", torch.tensor([0, *np.cumsum(cardinalities)[:-1]]))
        layers: list[nn.Module] = []
        for before, after in zip([len(cardinalities) * WIDTH, *HIDDEN[:-1]], HIDDEN, strict=True):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(inplace=True), nn.Dropout(DROPOUT)]
        self.mlp = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids + self.starts, self.table)
        values, wide = rows[:, :, :WIDTH], rows[:, :, WIDTH].sum(1)
        interaction = 0.5 * (values.sum(1).square() - values.square().sum(1)).sum(1)
        return wide + interaction + self.mlp(values.flatten(1)).squeeze(1) + self.bias


def tight_epoch(train_set: afm.Dataset) -> Callable[[], float]:
    rows = train_set.range(0, len(train_set))
    ids, labels = rows.ids.long(), rows.label.clone()
    model = TightDeepFM(train_set.schema.cardinalities)
    others = [parameter for name, parameter in model.named_parameters() if name != "table"]
    groups = [{"params": [model.table], "weight_decay": L2}, {"params": others}]
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


def afm_epoch(train_set: afm.Dataset, valid_set: afm.Dataset) -> Callable[[], float]:
    model = afm.DeepFM(train_set.schema, embedding_dim=WIDTH, hidden=HIDDEN, dropout=DROPOUT)

    def run() -> float:  # validation is not in the seconds of an epoch
        history = afm.train(model, train_set, valid_set, epochs=1, batch_size=BATCH, embedding_l2=L2)
        return history.epochs[0].seconds

    return run


def fuxictr_epoch(python: str, train_set: afm.Dataset, folder: Path) -> Callable[[], float]:
    rows = train_set.range(0, len(train_set))
    names = train_set.schema.id_field_names
    columns = {name: rows.ids[:, place].numpy() for place, name in enumerate(names)}
    np.savez(folder / "rows.npz", label=rows.label.numpy(), **columns)
    (folder / "sizes.json").write_text(json.dumps(dict(zip(names, train_set.schema.cardinalities, strict=True))))
    script = Path(__file__).parent / "peers" / "fuxictr_deepfm.py"
    peer = subprocess.Popen(
        [python, str(script), str(folder / "rows.npz"), str(folder / "sizes.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask() -> dict:
        return next(json.loads(line) for line in peer.stdout if line.startswith("{"))

    ask()

    def run() -> float:
        peer.stdin.write("\n")
        peer.stdin.flush()
        return ask()["seconds"]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="dataset folder of Frappe")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fuxictr-python", help="Python of an environment with fuxictr")
    arguments = parser.parse_args()
    train_set, valid_set = (afm.Dataset.open(arguments.folder, split) for split in ("train", "valid"))
    few = valid_set.range(0, 4096)
    valid_set = afm.Dataset.from_tensors(valid_set.schema, few.ids, label=few.label)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        peers = {"tight PyTorch loop": tight_epoch(train_set), "libafm": afm_epoch(train_set, valid_set)}
        if arguments.fuxictr_python:
            peers["FuxiCTR 2.3.10"] = fuxictr_epoch(arguments.fuxictr_python, train_set, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for round_number in range(arguments.rounds + 1):
            for name, run in peers.items():
                taken = run()
                if round_number:  # the first round warms up
                    seconds[name].append(taken)
                    print(f"round {round_number}: {name}: {len(train_set) / taken:,.0f} rows/s", flush=True)
    ours = statistics.median(seconds["libafm"])
    print(f"\n{len(train_set):,} rows, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| trainer | rows/s (median) | libafm against it |\n|---|--:|--:|")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"| {name} | {len(train_set) / median:,.0f} | {median / ours:.2f}x |")


if __name__ == "__main__":
    main()

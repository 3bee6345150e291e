"""FuxiCTR's own DeepFM on Frappe, trained by FuxiCTR's own trainer, compressed by afm.compress, trained on by the same.

    python benchmarks/compress_fuxictr.py frappe_x1 --seeds 1 2 3 --work compress_fuxictr

Runs where fuxictr==2.3.10 and "polars<2" are installed beside afm. The first folder holds train*.csv.gz, valid.csv.gz
and test.csv.gz. Settings as in frappe.py. Once every layer is compressed, and once the MLP alone. The control is the
uncompressed model; all are trained on for as many epochs with a new optimizer of the same learning rate. Each fit ends
with the weights of its best epoch on the validation rows, as FuxiCTR does it; test rows are read once for each row of
the table. The work folder keeps weights and figures of what is done, and an interrupted run goes on after them.

With --calibration it times afm.collect_statistics instead, against one epoch of forward passes over the same batches.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import afm
import numpy as np
import polars as pl
import torch
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from peers.fuxictr_deepfm import DeepFM, feature_map_of

LEARNING_RATE, EPOCHS_AT_MOST, PATIENCE = 1e-3, 100, 2
COMPRESSIONS = {"every layer": [], "MLP": ["embedding_layer", "fm"]}  # what stays as it is


class Frappe:
    """FuxiCTR's loaders. Ids count from 1 within a field (0 is FuxiCTR's padding); its last id is for the unseen."""

    def __init__(self, source: Path, work: Path, gpu: int, workers: int) -> None:
        tables = {split: pl.read_csv(next(source.glob(f"{split}*.csv.gz"))) for split in ("train", "valid", "test")}
        fields = [name for name in tables["train"].columns if name != "label"]
        ids = {name: {v: i for i, v in enumerate(tables["train"][name].unique().sort(), 1)} for name in fields}
        for split, table in tables.items():
            columns = {f: np.array([ids[f].get(value, len(ids[f]) + 1) for value in table[f]]) for f in fields}
            np.savez(work / f"{split}.npz", **columns, label=table["label"].to_numpy())
        self.features = feature_map_of({name: len(known) + 2 for name, known in ids.items()}, str(work))
        self.gpu = gpu
        paths = {f"{split}_data": str(work / f"{split}.npz") for split in tables}
        self.train, self.valid, self.test = RankDataLoader(self.features, **paths, batch_size=4096, num_workers=workers)

    def model(self) -> DeepFM:
        model = DeepFM(self.features, gpu=self.gpu, verbose=0, model_root=self.features.data_dir, metrics=["AUC"])
        model.model_to_device()
        return model

    def fit(self, model: DeepFM, checkpoint: Path, epochs: int, patience: int) -> None:
        model.checkpoint, model._early_stop_patience = str(checkpoint), patience
        model.fit(self.train, epochs=epochs, validation_data=self.valid)

    def judge(self, model: DeepFM) -> dict:
        metrics = model.evaluate(self.test, metrics=["AUC", "logloss"])
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return {"auc": metrics["AUC"], "logloss": metrics["logloss"], "parameters": parameters}


class Seed:
    """The rows of the table for one seed; each is made, judged and written down once."""

    def __init__(self, data: Frappe, seed: int, arguments: argparse.Namespace) -> None:
        self.data, self.seed, self.arguments = data, seed, arguments
        self.path = arguments.work / f"seed{seed}.json"
        self.rows: dict[str, dict] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def run(self) -> dict[str, dict]:
        seed_everything(self.seed)
        base = self.data.model()
        checkpoint = self.arguments.work / f"seed{self.seed}.base"
        self.row("base", base, lambda: self.data.fit(base, checkpoint, EPOCHS_AT_MOST, PATIENCE))
        base.load_weights(checkpoint)  # where the row was there before

        longer = copy.deepcopy(base)
        self.row("base, trained on", longer, lambda: self.train_on(longer))
        for name, skip in COMPRESSIONS.items():
            started = time.perf_counter()
            small, _ = afm.compress(base, self.data.train, ratio=self.arguments.ratio, skip=skip)
            seconds = time.perf_counter() - started
            self.row(f"{name}, one-shot", small, lambda: None, seconds)
            self.row(f"{name}, trained on", small, partial(self.train_on, small))
        return self.rows

    def train_on(self, model: DeepFM) -> None:
        seed_everything(self.seed)
        model.compile("adam", "binary_crossentropy", LEARNING_RATE)
        epochs = self.arguments.epochs
        self.data.fit(model, self.arguments.work / f"seed{self.seed}.trained_on", epochs, patience=epochs)

    def row(self, name: str, model: DeepFM, make: Callable[[], None], seconds: float = 0.0) -> None:
        if name in self.rows:
            return
        started = time.perf_counter()
        make()
        seconds += time.perf_counter() - started
        self.rows[name] = {**self.data.judge(model), "seconds": seconds}
        self.path.write_text(json.dumps(self.rows, indent=2) + "\n")
        print(f"seed {self.seed}: {name}: {json.dumps(self.rows[name])}", flush=True)


def calibration(data: Frappe, rounds: int) -> str:
    """Of an untrained model, whose cost is the same; in turns, in processor seconds, batches in memory."""
    model, batches = data.model().eval(), list(data.train)

    def forward() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    works = {"forward passes": forward, "calibration": lambda: afm.collect_statistics(model, batches)}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            seconds[name].append(time.process_time() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = statistics.median(c / f for f, c in zip(*seconds.values(), strict=True))
    return ", ".join(f"{name} {value:.3f} s" for name, value in medians.items()) + f": {ratio:.3f} times"


def table(seeds: list[dict[str, dict]]) -> str:
    """Markdown: mean over seeds, and the spread (standard deviation) of the AUC."""
    lines = ["| model | test AUC | spread | logloss | parameters |", "|---|--:|--:|--:|--:|"]
    for row in seeds[0]:
        aucs = [seed[row]["auc"] for seed in seeds]
        spread = statistics.stdev(aucs) if len(aucs) > 1 else 0.0
        logloss, parameters = (statistics.mean(seed[row][key] for seed in seeds) for key in ("logloss", "parameters"))
        lines.append(f"| {row} | {statistics.mean(aucs):.4f} | {spread:.4f} | {logloss:.4f} | {parameters:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--ratio", type=float, default=3.0)
    parser.add_argument("--epochs", type=int, default=8, help="to train on for")
    parser.add_argument("--work", type=Path, default=Path("compress_fuxictr"))
    parser.add_argument("--gpu", type=int, default=-1, help="its number; -1: the processor")
    parser.add_argument("--workers", type=int, default=1, help="of each of FuxiCTR's loaders")
    parser.add_argument("--calibration", type=int, metavar="ROUNDS", help="time it so many times, and train nothing")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    arguments.work.mkdir(parents=True, exist_ok=True)
    data = Frappe(arguments.folder, arguments.work, arguments.gpu, arguments.workers)
    if arguments.calibration:
        print(calibration(data, arguments.calibration))
    else:
        print(table([Seed(data, seed, arguments).run() for seed in arguments.seeds]))


if __name__ == "__main__":
    main()

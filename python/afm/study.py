"""The runs of `afm report`: base models and everything that has to be held against a small one.

Each cell (variant, seed) leaves a model file, its logits on the test rows and a JSON in the study's folder, so that a
study that was interrupted goes on where it stopped, and a longer one reuses the cells of a shorter one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import afm

from .judging import Rows, churn, judge
from .prediction import predict_rise
from .recipe import Recipe, measure, shrink_to_file
from .text_files import write_text

# Rise of the logloss by compression alone, before any training on: predicted, as KL(base || small) on calibration rows,
# and as it is on the validation rows.
RISES = RANKS, ROUNDING, PREDICTED, CALIBRATION, MEASURED = (
    "predicted_ranks_rise",
    "predicted_rounding_rise",
    "predicted_logloss_rise",
    "calibration_kl",
    "measured_logloss_rise",
)


@dataclass(frozen=True)
class Settings:
    """What a study is about. Everything in it decides on the results."""

    folder: str
    kind: str = "deepfm"
    model: dict = field(default_factory=dict)  # options of the model
    training: dict = field(default_factory=dict)  # of the base
    extra_epochs: int = 10
    seeds: tuple[int, ...] = (1, 2, 3, 4)
    ratios: tuple[float, ...] = (5.0, 10.0, 20.0)  # parameters, ranks alone
    times: tuple[float, ...] = (18.0, 25.0, 32.0, 45.0, 60.0)  # bytes of the model file, everything together
    device: str = "cpu"
    teachers: tuple[str, ...] = ()  # model files; none: the bases of all seeds


@dataclass(frozen=True)
class Variant:
    """One line of the report.

    Args:
        name: what the table calls it.
        key: its folder.
        group: "control", "baseline", "ranks", "bytes" or "ingredient".
        make: (study, seed) -> the model to judge, as it would be served.
    """

    name: str
    key: str
    group: str
    make: Callable[[Study, int], afm.Model]


class Study:
    def __init__(self, settings: Settings, output: Path) -> None:
        self.settings = settings
        self.output = output
        self.rises: dict[str, float] = {}  # of the logloss, predicted and measured, by the compression of this cell

    # Data

    @cached_property
    def train_set(self) -> afm.Dataset:
        return afm.Dataset.open(self.settings.folder, "train").to(self.settings.device)

    @cached_property
    def valid_set(self) -> afm.Dataset:
        return afm.Dataset.open(self.settings.folder, "valid").to(self.settings.device)

    @cached_property
    def test_set(self) -> afm.Dataset:
        return afm.Dataset.open(self.settings.folder, "test").to(self.settings.device)

    @cached_property
    def rows(self) -> Rows:
        return Rows.of(self.train_set, self.test_set)

    # Models

    def base(self, seed: int) -> afm.Model:
        """Trained once per seed."""
        self.train_bases()
        return afm.load_model(self.base_file(seed)).to(self.settings.device)

    def train_bases(self) -> None:
        """Those that are missing, all at once; each goes on where an interrupted study left it."""
        missing = {seed: self.base_file(seed) for seed in self.settings.seeds if not self.base_file(seed).exists()}
        if not missing:
            return
        models = []
        for seed in missing:
            torch.manual_seed(seed)
            models.append(afm.make_model(self.settings.kind, self.train_set.schema, **self.settings.model))
        (self.output / "base").mkdir(parents=True, exist_ok=True)
        options = {
            **self.settings.training,
            "seed": list(missing),
            "device": self.settings.device,
            "checkpoint": [f"{path}.checkpoint" for path in missing.values()],
            "resume": True,
        }
        afm.fit_many(models, self.train_set, self.valid_set, **options)
        for model, path, checkpoint in zip(models, missing.values(), options["checkpoint"], strict=True):
            afm.save_model(model, path)
            Path(checkpoint).unlink(missing_ok=True)

    def base_file(self, seed: int) -> Path:
        return self.output / "base" / f"{seed}.safetensors"

    @cached_property
    def teachers(self) -> list[afm.Model]:
        """The mean of their logits is the teacher."""
        if self.settings.teachers:
            return [afm.load_model(path).to(self.settings.device) for path in self.settings.teachers]
        return [self.base(seed) for seed in self.settings.seeds]

    def statistics(self, seed: int, metric: bool = True) -> afm.Statistics:
        """Of a base model, over the whole training set."""
        path = self.output / "statistics" / f"{seed}{'' if metric else '-plain'}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            measure(self.base(seed), self.train_set, metric=metric).save(str(path))
        return afm.Statistics.load(str(path))

    def fit(self, model: afm.Model, seed: int, **options) -> None:
        """afm.train() on the rows and the device of the study; `options` are its keywords, the teacher among them."""
        afm.train(model, self.train_set, self.valid_set, seed=seed, device=self.settings.device, **options)

    def train_on(self, model: afm.Model, seed: int, taught: bool) -> afm.Model:
        """The extra epochs that every compressed model and its controls get."""
        kept = ("batch_size", "embedding_l2", "mlp_l2")
        options = {name: value for name, value in self.settings.training.items() if name in kept}
        self.fit(
            model,
            seed + 1000,
            epochs=self.settings.extra_epochs,
            schedule="linear",
            patience=0,
            teacher=self.teachers if taught else None,
            **options,
        )
        return model

    def base_bytes(self) -> int:
        """Size of a base's model file; that of every seed is the same but for a few digits."""
        return self.base_file(self.settings.seeds[0]).stat().st_size

    def small(self, seed: int, recipe: Recipe, *, ratio: float | None = None, times: float | None = None) -> afm.Model:
        """A compressed base, before any training; `rises` is then its own."""
        model, statistics = self.base(seed), self.statistics(seed, recipe.metric)
        if times is not None:
            target = int(self.base_bytes() / times)
            small, plan = shrink_to_file(model, statistics, recipe, target, self.train_set)
        else:
            plan = recipe.plan(model, statistics, ratio=ratio)
            small = recipe.apply(model, statistics, plan)
        if recipe.metric:
            found = predict_rise(model, small, statistics, plan, self.train_set)
            losses = [afm.evaluate(each, self.valid_set).logloss for each in (model, small)]
            values = (found.ranks, found.rounding, found.total, found.measured, losses[1] - losses[0])
            self.rises = dict(zip(RISES, values, strict=True))
        return small

    # Cells

    def cell(self, variant: Variant, seed: int) -> dict:
        """Runs a variant for a seed, or reads what an earlier run left."""
        folder = self.output / variant.key
        record = folder / f"{seed}.json"
        if record.exists():
            return json.loads(record.read_text())
        started = time.perf_counter()
        folder.mkdir(parents=True, exist_ok=True)
        self.rises = {}
        try:
            model = variant.make(self, seed)
        except ValueError as error:  # a budget that this variant cannot reach
            result = {"refused": str(error)}
        else:
            result = self.judged(model, seed, folder)
        result |= {"variant": variant.key, "seed": seed, "seconds": time.perf_counter() - started}
        write_text(record, json.dumps(result, indent=1) + "\n")
        return result

    def judged(self, model: afm.Model, seed: int, folder: Path) -> dict:
        """Saves the model, and looks at the test rows: once, with the model that was saved."""
        path = folder / f"{seed}.safetensors"
        afm.save_model(model, path)
        served = afm.load_model(path).to(self.settings.device)
        logits = np.asarray(afm.predict(served, self.test_set).double().cpu())
        np.save(folder / f"{seed}.logits.npy", logits.astype(np.float32))
        base = np.asarray(afm.predict(self.base(seed), self.test_set).double().cpu())
        seen = afm.report_on(served, self.test_set)
        return {
            **judge(logits, self.rows),
            **churn(base, logits, self.rows.labels.mean()),
            **self.rises,
            "valid_auc": afm.evaluate(served, self.valid_set).auc,
            "parameters": afm.parameter_count(served),
            "bytes": path.stat().st_size,
            "multiply_adds": multiply_adds(served),
            "microseconds_per_row": seen.microseconds_per_row,
            "ranks": served.ranks.to_dict(),
        }


def multiply_adds(model: afm.Model) -> int:
    """Per row: every weight matrix once; the embedding's basis once, and D for each of its fields where they meet."""
    matrices = sum(
        tensor.numel()
        for name, tensor in model.named_parameters()
        if tensor.dim() >= 2 and name not in ("embedding.weight", "embedding.latent") and not name.endswith("offset")
    )
    fields = len([each for each in model.schema.fields if each.kind != "numeric"])
    return matrices + (2 * fields * model.options.embedding_dim if model.kind == "deepfm" else 0)


def as_json(settings: Settings) -> str:
    return json.dumps(asdict(settings), indent=1) + "\n"

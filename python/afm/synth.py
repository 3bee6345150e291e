"""A Criteo-like table with a known answer: how well could any model do?

26 categorical fields with 10 to 200,000 values of power-law frequency, 13 numeric fields, clicks drawn from a planted
teacher: a bias, a weight per value, and a rank-4 factorization machine over the fields. The AUC and logloss of the
teacher's own probabilities (the Bayes optimum) are known and written beside the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from .tables import CRITEO_COLUMNS
from .text_files import write_text

CATEGORICAL, NUMERIC, TEACHER_RANK = 26, 13, 4
ROWS_PER_CHUNK = 100_000
BINS = 1 << 20  # of the teacher's probabilities, for the AUC of the Bayes optimum


@dataclass
class SynthReport:
    """The table that was written and the best that any model can reach on it."""

    path: str
    rows: int
    seed: int
    click_rate: float
    bayes_auc: float
    bayes_logloss: float


class Teacher:
    """The planted truth: popularity, weights and latent vectors per value."""

    def __init__(self, seed: int, max_cardinality: int) -> None:
        random = np.random.default_rng([seed, 0])
        self.cardinalities = np.geomspace(10, max_cardinality, CATEGORICAL).round().astype(int)
        random.shuffle(self.cardinalities)
        self.popularity = [np.cumsum(1.0 / np.arange(1, n + 1) ** 1.05) for n in self.cardinalities]
        self.weights = [random.normal(0, 0.25, n) for n in self.cardinalities]
        self.latent = [random.normal(0, 0.22, (n, TEACHER_RANK)) for n in self.cardinalities]
        self.slopes = random.normal(0, 0.15, NUMERIC)
        self.bias = -1.4

    def sample(self, random: np.random.Generator, rows: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Values per categorical field, numbers [rows, 13] (3 % are NaN, without effect), probabilities [rows]."""
        values = [
            np.searchsorted(cumulative, random.random(rows) * cumulative[-1], side="right")
            for cumulative in self.popularity
        ]
        numbers = random.lognormal(1.0, 1.2, (rows, NUMERIC)).round(3)
        effects = (np.log1p(numbers) - 1.3) * self.slopes
        missing = random.random(numbers.shape) < 0.03
        numbers[missing], effects[missing] = np.nan, 0.0
        vectors = np.stack([table[ids] for table, ids in zip(self.latent, values, strict=True)], axis=1)  # [rows, F, r]
        total = vectors.sum(axis=1)
        meetings = 0.5 * ((total**2).sum(axis=1) - (vectors**2).sum(axis=(1, 2)))
        first_order = sum(weight[ids] for weight, ids in zip(self.weights, values, strict=True))
        logits = self.bias + first_order + meetings + effects.sum(axis=1)
        return values, numbers, 1.0 / (1.0 + np.exp(-logits))


class BayesScore:
    """Expected AUC and logloss of the true probabilities, streamed: every row is a click with weight p."""

    def __init__(self) -> None:
        self.clicks, self.others, self.logloss, self.rows = np.zeros(BINS), np.zeros(BINS), 0.0, 0

    def add(self, p: np.ndarray) -> None:
        place = np.minimum((p * BINS).astype(np.int64), BINS - 1)
        self.clicks += np.bincount(place, weights=p, minlength=BINS)
        self.others += np.bincount(place, weights=1 - p, minlength=BINS)
        q = np.clip(p, 1e-12, 1 - 1e-12)
        self.logloss -= float((q * np.log(q) + (1 - q) * np.log(1 - q)).sum())
        self.rows += len(p)

    def auc(self) -> float:
        below = np.cumsum(self.others) - self.others
        return float((self.clicks * (below + 0.5 * self.others)).sum() / (self.clicks.sum() * self.others.sum()))


def synth(
    out: str | Path,
    *,
    rows: int = 200_000,
    seed: int = 1,
    max_cardinality: int = 200_000,
    on_progress: Callable[[int], None] | None = None,
) -> SynthReport:
    """Writes a table of `rows` rows, chunk by chunk, and `<out>.teacher.json` beside it.

    `.csv` gets a header; `.tsv` has Criteo's headerless form. About 3 % of the numbers are missing.
    """
    out = Path(out)
    if out.suffix not in {".csv", ".tsv"}:
        raise ValueError(f"synth: the output must end in .csv or .tsv, got {out.name!r}")
    if rows < 1 or max_cardinality < 10:
        raise ValueError(
            f"synth: rows must be at least 1 and max_cardinality at least 10, got {rows}, {max_cardinality}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    teacher, score, clicks = Teacher(seed, max_cardinality), BayesScore(), 0
    temporary = out.with_name(out.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            for chunk, first in enumerate(range(0, rows, ROWS_PER_CHUNK)):
                random = np.random.default_rng([seed, 1, chunk])
                frame, p = sample_frame(teacher, random, min(ROWS_PER_CHUNK, rows - first))
                is_csv = out.suffix == ".csv"
                frame.write_csv(stream, include_header=is_csv and first == 0, separator="," if is_csv else "\t")
                score.add(p)
                clicks += int(frame["label"].sum())
                if on_progress:
                    on_progress(first + frame.height)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    report = SynthReport(str(out), rows, seed, clicks / rows, score.auc(), score.logloss / rows)
    write_text(out.with_name(out.name + ".teacher.json"), json.dumps(asdict(report), indent=2) + "\n")
    return report


def sample_frame(teacher: Teacher, random: np.random.Generator, rows: int) -> tuple[pl.DataFrame, np.ndarray]:
    values, numbers, p = teacher.sample(random, rows)
    columns: dict[str, pl.Series] = {"label": pl.Series((random.random(rows) < p).astype(np.int8))}
    for index, name in enumerate(CRITEO_COLUMNS[1 : 1 + NUMERIC]):
        columns[name] = pl.Series(numbers[:, index]).fill_nan(None)
    for index, name in enumerate(CRITEO_COLUMNS[1 + NUMERIC :]):
        columns[name] = pl.Series(values[index]).cast(pl.String)
    return pl.DataFrame(columns), p

"""What a model's answers on test rows are worth: the figures of a study, from logits alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import afm

DECILES = 10
BINS = 20  # of the calibration error


@dataclass(frozen=True)
class Rows:
    """The rows that models are judged on, and what is known of them.

    Args:
        labels: [N] 0 or 1.
        rarity: [N] how often the rarest value of each row occurs in the training set; 0 for a value it does not hold.
    """

    labels: np.ndarray
    rarity: np.ndarray

    @classmethod
    def of(cls, train_set: afm.Dataset, dataset: afm.Dataset) -> Rows:
        """The rows of `dataset`, with counts from `train_set`."""
        counted, batch = train_set.range(0, len(train_set)), dataset.range(0, len(dataset))
        train_ids, ids = np.asarray(counted.ids.cpu()), np.asarray(batch.ids.cpu())
        rarity = np.full(len(ids), np.iinfo(np.int64).max)
        for slot in range(ids.shape[1]):
            size = int(max(train_ids[:, slot].max(), ids[:, slot].max())) + 1
            counts = np.bincount(train_ids[train_ids[:, slot] >= 0, slot], minlength=size)
            filled = ids[:, slot] >= 0  # empty slots of multi-valued fields have no value
            seen = np.where(ids[:, slot] == 0, 0, counts[ids[:, slot]])  # id 0 stands for every unknown value
            rarity = np.where(filled, np.minimum(rarity, seen), rarity)
        return cls(np.asarray(batch.label.cpu(), dtype=np.float64), rarity)


def judge(logits: np.ndarray, rows: Rows) -> dict:
    """AUC, logloss, calibration error, AUC by rarity of the rarest value, and on rows with an unseen value."""
    return {
        "auc": afm.auc(logits, rows.labels),
        "logloss": afm.logloss(logits, rows.labels),
        "calibration_error": calibration_error(logits, rows.labels),
        "auc_by_decile": auc_by_decile(logits, rows),
        "auc_unseen": auc_where(logits, rows.labels, rows.rarity == 0),
        "rows_unseen": int((rows.rarity == 0).sum()),
    }


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over rows of |mean probability - mean label| in `BINS` bins of equally many rows."""
    order = np.argsort(logits, kind="stable")
    bins = zip(np.array_split(sigmoid(logits)[order], BINS), np.array_split(labels[order], BINS), strict=True)
    return float(sum(abs(p.sum() - t.sum()) for p, t in bins) / len(labels))


def auc_where(logits: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> float | None:
    """None where the chosen rows have one label only."""
    if not chosen.any() or labels[chosen].min() == labels[chosen].max():
        return None
    return afm.auc(logits[chosen], labels[chosen])


def auc_by_decile(logits: np.ndarray, rows: Rows) -> list[float | None]:
    """From the rows with the rarest values to those with none that is rare."""
    order = np.argsort(rows.rarity, kind="stable")
    return [
        auc_where(logits[part], rows.labels[part], np.ones(len(part), bool)) for part in np.array_split(order, DECILES)
    ]


def churn(base: np.ndarray, other: np.ndarray, click_rate: float) -> dict:
    """How far other answers are from the base's: flipped decisions at the click rate, mean |p - q|, mean KL."""
    p, q = sigmoid(base), sigmoid(other)
    kl = softplus(other) - softplus(base) - p * (other - base)
    return {
        "flipped": float(np.mean((p > click_rate) != (q > click_rate))),
        "mean_difference": float(np.mean(np.abs(p - q))),
        "mean_kl": float(np.mean(kl)),
    }


def auc_difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """AUC(second) - AUC(first) on the same rows and its standard error (DeLong, DeLong and Clarke-Pearson 1988)."""
    positive = labels > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    above, below = zip(*(placements(logits, positive) for logits in (first, second)), strict=True)
    difference = float(np.mean(above[1]) - np.mean(above[0]))
    variance = np.var(above[1] - above[0], ddof=1) / m + np.var(below[1] - below[0], ddof=1) / n
    return difference, math.sqrt(variance)


def placements(logits: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of negatives below each positive, and of positives above each negative; ties count half."""
    all_ranks = mid_ranks(logits)
    m, n = int(positive.sum()), int((~positive).sum())
    above = (all_ranks[positive] - mid_ranks(logits[positive])) / n
    below = 1.0 - (all_ranks[~positive] - mid_ranks(logits[~positive])) / m
    return above, below


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


def softplus(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, logits)

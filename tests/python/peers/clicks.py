"""Clicks that follow from who looks at what, so that a model has something to learn: the same rows for every peer."""

from __future__ import annotations

import numpy as np

ROWS, BATCH = 4096, 128
VALID = 512  # rows, where a trainer wants some
FEW = 8  # batches, for calibration and comparison
VOCABULARY = {"user": 200, "item": 300, "category": 40, "hour": 25, "device": 60}  # id 0 is padding, and never drawn
HISTORY = 8  # items that the user has seen, padded with 0 at the end
TASTE = 4  # width of the planted factors


def clicks(seed: int, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Columns of ids from 1 (`history` [rows, HISTORY] from 0), of the number `price`, and of the label `click`."""
    truth = np.random.default_rng(0)  # the same for every split
    taste = {name: truth.normal(size=(size, TASTE)) for name, size in VOCABULARY.items()}
    random = np.random.default_rng(seed)
    columns = {name: random.integers(1, size, rows) for name, size in VOCABULARY.items()}
    history = random.integers(1, VOCABULARY["item"], (rows, HISTORY))
    history[np.arange(HISTORY) >= random.integers(1, HISTORY + 1, (rows, 1))] = 0
    price = random.normal(size=rows)
    rows_of = {name: table[columns[name]] for name, table in taste.items()}
    seen = np.where(history[..., None] > 0, taste["item"][history], 0.0).mean(1)
    logit = (
        sum(row[:, 0] for row in rows_of.values())
        + (rows_of["user"] * rows_of["item"]).sum(1) / 2
        + (seen * rows_of["item"]).sum(1)
        + price
    )
    click = random.random(rows) < 1 / (1 + np.exp(-logit))
    return columns | {
        "history": history,
        "price": price.astype(np.float32),
        "click": click.astype(np.float32),
    }

"""The figures of a report: mean and spread over seeds, and paired differences against the two controls."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

import afm

from .judging import auc_difference
from .study import RISES, Settings, Study, Variant

AVERAGED = (
    "auc",
    "logloss",
    "calibration_error",
    "parameters",
    "bytes",
    "multiply_adds",
    "microseconds_per_row",
    "flipped",
    "mean_difference",
    "mean_kl",
    "auc_unseen",
)
CONTROLS = {"E": "control-e", "T": "control-t"}


def summarize(settings: Settings, lines: Iterable[Variant], results: dict[tuple[str, int], dict], output: Path) -> dict:
    """What the pages and report.json hold."""
    study = Study(settings, output)
    base = [results[key] for key in results if key[0] == "base-judged"]
    size = statistics.mean(cell["bytes"] for cell in base) if base else study.base_bytes()
    return {
        "version": afm.__version__,
        "settings": asdict(settings),
        "base_bytes": size,
        "test_rows": len(study.rows.labels),
        "lines": [line(variant, settings, results, output, study, size) for variant in lines if ran(variant, results)],
    }


def ran(variant: Variant, results: dict[tuple[str, int], dict]) -> bool:
    return any(key == variant.key for key, _ in results)


def line(variant, settings, results, output, study, base_bytes) -> dict:
    cells = [results[variant.key, seed] for seed in settings.seeds if (variant.key, seed) in results]
    found = {"name": variant.name, "key": variant.key, "group": variant.group, "seeds": len(cells)}
    refused = [cell["refused"] for cell in cells if "refused" in cell]
    if refused:
        return found | {"refused": refused[0]}
    for name in AVERAGED:
        values = [cell[name] for cell in cells if cell[name] is not None]
        found[name] = spread(values) if values else None
    for name in RISES:
        if name in cells[0]:
            found[name] = spread([cell[name] for cell in cells])
    found["times"] = base_bytes / found["bytes"]["mean"]
    deciles = zip(*(cell["auc_by_decile"] for cell in cells), strict=True)
    found["auc_by_decile"] = [spread(part)["mean"] if None not in part else None for part in deciles]
    for control, key in CONTROLS.items():
        pairs = [(results[key, c["seed"]], c) for c in cells if (key, c["seed"]) in results]
        if pairs and key != variant.key:
            found[f"minus_{control}"] = difference(pairs, key, variant.key, output, study)
    return found


def spread(values: list[float]) -> dict:
    return {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def difference(pairs, control: str, key: str, output: Path, study: Study) -> dict:
    """AUC minus the control's: mean and spread over seeds, and the mean standard error over test rows (DeLong)."""
    paired = [second["auc"] - first["auc"] for first, second in pairs]
    errors = []
    for first, second in pairs:
        logits = [
            np.load(output / name / f"{cell['seed']}.logits.npy") for name, cell in ((control, first), (key, second))
        ]
        errors.append(auc_difference(*logits, study.rows.labels)[1])
    return spread(paired) | {"standard_error_rows": statistics.mean(errors)}

"""What a plan predicts of the logloss, and what comes true of it: ranks alone, then the same ranks of integers.

    afm train frappe --set embedding_dim=10 --set dropout=0.2 --set embedding_l2=0.05 --set epochs=8 \\
        --set schedule=linear --set patience=0 --out base.safetensors
    python benchmarks/predicted_rise.py frappe base.safetensors --ratio 5

Nothing is trained on. Predictions and KL(base || small) are of training rows. On validation rows the logloss rises by
the KL there and by the mean of (p - t)(s' - s): p the base's probability, t the label, s and s' the logits.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import afm
from afm.prediction import ROWS, predict_rise
from afm.recipe import Recipe, measure

INTEGERS = (("float", "row"), ("int8", "row"), ("int4", "row"), ("int4", "column"))
COLUMNS = ("numbers", "ranks", "rounding", "predicted", "KL", "rounding, KL", "KL, validation", "rise, validation")


def with_integers(plan: afm.RankPlan, layers: list[str], bits: str, scale: str) -> afm.RankPlan:
    """The same ranks, all layers of integers, dense ones too."""
    whole = {layer: plan.get(layer, afm.LayerPlan()) for layer in layers}
    changed = {layer: replace(form, bits=bits, scale=scale) for layer, form in whole.items()}
    return afm.RankPlan({layer: form for layer, form in changed.items() if form != afm.LayerPlan()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--ratio", type=float, default=5.0)
    parser.add_argument("--statistics", type=Path, help="File: read where it exists, written otherwise.")
    options = parser.parse_args()
    train_set, valid_set = (afm.Dataset.open(options.folder, split) for split in ("train", "valid"))
    base = afm.load_model(options.base)
    if options.statistics is not None and options.statistics.exists():
        statistics = afm.Statistics.load(str(options.statistics))
    else:
        statistics = measure(base, train_set)
        if options.statistics is not None:
            statistics.save(str(options.statistics))
    plan = Recipe().plan(base, statistics, ratio=options.ratio)
    exact = Recipe().apply(base, statistics, plan)
    before = afm.evaluate(base, valid_set).logloss
    print("| " + " | ".join(COLUMNS) + " |\n|---" + "|--:" * (len(COLUMNS) - 1) + "|")
    for bits, scale in INTEGERS:
        wanted = with_integers(plan, list(statistics.layers), bits, scale)
        small = afm.with_bits(exact, wanted)
        found = predict_rise(base, small, statistics, wanted, train_set)
        values = (
            found.ranks,
            found.rounding,
            found.total,
            found.measured,
            afm.mean_kl(exact, small, train_set, max_rows=ROWS),
            afm.mean_kl(base, small, valid_set, max_rows=ROWS),
            afm.evaluate(small, valid_set).logloss - before,
        )
        name = bits if bits == "float" else f"{bits}, a scale per {scale}"
        print(f"| {name} | " + " | ".join(f"{value:.5f}" for value in values) + " |", flush=True)


if __name__ == "__main__":
    main()

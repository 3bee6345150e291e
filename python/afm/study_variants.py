"""The lines of a report: controls, baselines, each ingredient alone, and all of them together at several sizes."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import torch

import afm

from .recipe import Recipe, file_bytes, finished
from .study import Settings, Study, Variant

SCRATCH_WIDTHS = (2, 4, 8)  # embedding widths of small models from scratch
SCRATCH_SHAPES = ((1.0, 0.5),)  # hidden layers, as shares of the widest that fits
SCRATCH_LARGEST = 1024


def variants(settings: Settings) -> list[Variant]:
    """Every line of the report, controls first."""
    lines = [
        Variant("base", "base-judged", "control", lambda study, seed: study.base(seed)),
        Variant("base, trained on (E)", "control-e", "control", lambda s, seed: s.train_on(s.base(seed), seed, False)),
        Variant(
            "base, trained on with the teacher (T)",
            "control-t",
            "control",
            lambda s, seed: s.train_on(s.base(seed), seed, True),
        ),
        integers_only("int8"),
        integers_only("int4"),
    ]
    for ratio in settings.ratios:
        lines += ranks_alone(ratio)
    for times in settings.times:
        lines += [everything(times), from_scratch(times, "int8"), from_scratch(times, "float")]
    return lines + ingredients(settings)


def ranks_alone(ratio: float) -> list[Variant]:
    """A budget of parameters, no integers: one-shot, trained on without and with the teacher, and two baselines."""
    name = "ranks and units" if Recipe.for_ratio(ratio).units else "ranks"

    def ours(taught: bool | None):
        def make(study: Study, seed: int) -> afm.Model:
            small = study.small(seed, Recipe.for_ratio(ratio), ratio=ratio)
            return finished(small if taught is None else study.train_on(small, seed, taught))

        return make

    def baseline(recipe: Recipe):
        return lambda study, seed: study.train_on(study.small(seed, recipe, ratio=ratio), seed, True)

    plain = Recipe(metric=False, policy="uniform", joint=False, fold=False)
    return [
        Variant(f"{name} {ratio:g}x, one-shot", f"ranks-{ratio:g}-one-shot", "ranks", ours(None)),
        Variant(f"{name} {ratio:g}x, no teacher", f"ranks-{ratio:g}-alone", "ranks", ours(False)),
        Variant(f"{name} {ratio:g}x", f"ranks-{ratio:g}", "ranks", ours(True)),
        Variant(
            f"weight SVD {ratio:g}x, uniform ranks",
            f"svd-{ratio:g}",
            "baseline",
            baseline(replace(plain, method="svd")),
        ),
        Variant(f"paper's AFM {ratio:g}x, uniform ranks", f"afm-{ratio:g}", "baseline", baseline(plain)),
    ]


def everything(times: float) -> Variant:
    """All ingredients, chosen from the size alone."""

    def make(study: Study, seed: int) -> afm.Model:
        recipe = Recipe.for_bytes(times, study.base(seed))
        return finished(study.train_on(study.small(seed, recipe, times=times), seed, True))

    return Variant(f"libafm {times:g}x bytes", f"all-{times:g}", "bytes", make)


def ingredients(settings: Settings) -> list[Variant]:
    """At one size, the recipe with one ingredient taken away each."""
    if not settings.times:
        return []
    times = settings.times[len(settings.times) // 2]
    changes = {
        "loss-weighted ranks (energy instead)": {"metric": False, "policy": "energy", "units": False, "tiers": 0},
        "the wide weights in the tables": {"joint": False},
        "folding": {"fold": False},
        "fewer hidden units": {"units": False},
        "INT4 (INT8 instead)": {"embedding_bits": "int8", "mlp_bits": "int8"},
        "a measured choice of scales (per column instead)": {"embedding_scale": "column", "mlp_scale": "column"},
        "a measured choice of scales (per row instead)": {"embedding_scale": "row", "mlp_scale": "row"},
    }

    def make(change: dict):
        def run(study: Study, seed: int) -> afm.Model:
            recipe = replace(Recipe.for_bytes(times, study.base(seed)), **change)
            small = study.train_on(study.small(seed, recipe, times=times), seed, True)
            return finished(small) if recipe.fold else small

        return run

    return [
        Variant(f"{times:g}x without {name}", f"without-{times:g}-{index}", "ingredient", make(change))
        for index, (name, change) in enumerate(changes.items())
    ]


def integers_only(bits: str) -> Variant:
    """Every weight of the base as integers, trained on with the quantisation in the loop."""

    def make(study: Study, seed: int) -> afm.Model:
        base = study.base(seed)
        small = with_integers(base, bits, study).to(base.device)
        small.load_state_dict(base.state_dict())
        return study.train_on(small, seed, True)

    return Variant(f"{bits.upper()} alone", f"integers-{bits}", "baseline", make)


def from_scratch(times: float, bits: str) -> Variant:
    """A small model of the same kind at equal bytes, best of a grid on the validation rows, with the same teacher.

    With int8 its weights are trained with the quantisation in the loop, and are four times what floats could be.
    """

    def make(study: Study, seed: int) -> afm.Model:
        target = int(study.base_bytes() / times)
        shapes = grid(study, target, bits)
        if not shapes:
            raise ValueError(f"no model of {target:,} bytes holds the tables")
        trained = [trained_small(study, seed, shape, bits) for shape in shapes]
        best = max(trained, key=lambda model: afm.evaluate(model, study.valid_set).auc)
        return study.train_on(best, seed, True)

    how = "" if bits == "int8" else " in floats"
    key = f"scratch-{times:g}" if bits == "int8" else f"scratch-{bits}-{times:g}"
    return Variant(f"small from scratch{how}, {times:g}x bytes", key, "baseline", make)


def grid(study: Study, target: int, bits: str) -> list[dict]:
    """For each embedding width and shape of the MLP the widest model whose file fits."""
    found = []
    for width, shape in itertools.product(SCRATCH_WIDTHS, SCRATCH_SHAPES):
        options = {"embedding_dim": width, "hidden": None}
        low, high = 0, SCRATCH_LARGEST
        while high - low > 1:
            middle = (low + high) // 2
            hidden = [max(1, int(middle * share)) for share in shape]
            fits = file_bytes(small_model(study, options | {"hidden": hidden}, bits)) <= target
            low, high = (middle, high) if fits else (low, middle)
        if low >= 4:
            found.append(options | {"hidden": [max(1, int(low * share)) for share in shape]})
    return found


def small_model(study: Study, options: dict, bits: str) -> afm.Model:
    model = afm.make_model(study.settings.kind, study.train_set.schema, **(study.settings.model | options))
    return with_integers(model, bits, study)


def with_integers(model: afm.Model, bits: str, study: Study) -> afm.Model:
    """A fresh model of the same options whose layers all have such numbers."""
    if bits == "float":
        return model
    layers = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    planned = layers & set(study.statistics(study.settings.seeds[0]).layers)
    plan = {path: afm.LayerPlan(bits=bits) for path in planned}
    return afm.make_model(model.kind, model.schema, **json.loads(model.options.to_json()), ranks=plan)


def trained_small(study: Study, seed: int, options: dict, bits: str) -> afm.Model:
    torch.manual_seed(seed)
    model = small_model(study, options, bits)
    study.fit(model, seed, teacher=study.teachers, **study.settings.training)
    return model

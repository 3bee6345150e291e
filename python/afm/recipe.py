"""From one number to a small model: what to spend a budget on, and the search for the plan that fits a file size."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import afm

from .prediction import ROWS, predict_rise

TRIES = 9  # of the search for a file size
CLOSE, AIM = 0.98, 0.995  # shares of the file size: what ends it, and what it makes for, as sizes come in steps


@dataclass(frozen=True)
class Recipe:
    """What a budget may be spent on.

    Args:
        metric: outputs are measured in the Gauss-Newton metric of the logloss, not in squares.
        policy: how ranks are chosen: "loss" (with the metric), "energy" or "uniform".
        method: "mimic" or "svd".
        joint: wide weights are decoded from the latents of the embedding.
        fold: the layers behind the embedding read its latents, batch norm goes into the layer before it.
        tiers: blocks of ids per field at most, rare ones with fewer coordinates; 0 = none.
        embedding_bits: of the latent rows: "float", "int8" or "int4".
        mlp_bits: of the factors of linear layers.
        embedding_scale: of integers in the rows, one per "row" or per "column"; or "measured": what loses least at the
            same size of the file, once it is trained on.
        mlp_scale: the same for linear layers.
        units: fewer hidden units are a choice too.
    """

    metric: bool = True
    policy: str = "loss"
    method: str = "mimic"
    joint: bool = True
    fold: bool = True
    tiers: int = 0
    embedding_bits: str = "float"
    mlp_bits: str = "float"
    embedding_scale: str = "row"
    mlp_scale: str = "row"
    units: bool = False

    @classmethod
    def for_bytes(cls, times: float, model: afm.Model) -> Recipe:
        """What has proved best for a model file so many times smaller (benchmarks/RESULTS.md).

        Tiers only where tables are most of the model: on smaller ones they lost a little.
        """
        if times < 4:
            return cls()
        tiers = 4 if times >= 7 and table_share(model) > 0.5 else 0
        if times < 12:
            return cls(embedding_bits="int8", mlp_bits="int8", tiers=tiers)
        mlp_bits = "int8" if times < 26 else "int4"
        return cls(
            embedding_bits="int4",
            mlp_bits=mlp_bits,
            embedding_scale="measured",
            mlp_scale="measured",
            tiers=tiers,
            units=True,
        )

    @classmethod
    def for_ratio(cls, ratio: float) -> Recipe:
        """The same for so many times fewer parameters, without integers."""
        return cls(units=ratio >= 7)

    def choices(self) -> Iterator[Recipe]:
        """The recipes that differ in what is to be measured."""

        def scales(given: str, bits: str) -> tuple[str, ...]:
            if given != "measured":
                return (given,)
            return ("column", "row") if bits != "float" else ("row",)

        embedding = scales(self.embedding_scale, self.embedding_bits)
        for one, other in itertools.product(embedding, scales(self.mlp_scale, self.mlp_bits)):
            yield replace(self, embedding_scale=one, mlp_scale=other)

    def plan(self, model: afm.Model, statistics: afm.Statistics, **budget) -> afm.RankPlan:
        """Ranks within one budget: ratio, bytes, macs, energy or predicted_logloss."""
        return afm.plan_ranks(
            statistics,
            policy=self.policy,
            joint=self.joint and has_wide_weights(model),
            **(folding(model) if self.fold else {}),
            tiers=self.tiers,
            embedding_bits=self.embedding_bits,
            mlp_bits=self.mlp_bits,
            embedding_scale=self.embedding_scale,
            mlp_scale=self.mlp_scale,
            units=self.units,
            model=model if self.units else None,
            **budget,
        )

    def apply(self, model: afm.Model, statistics: afm.Statistics, plan: afm.RankPlan) -> afm.Model:
        """The small model, ready to be trained on: batch norm is still alive.

        Its numbers become integers last: what fold() computes with is not rounded yet.
        """
        small = afm.factorize(model, statistics, as_floats(plan), method=self.method)
        if self.fold:
            small = afm.fold(small).model.to(model.device)
        return afm.with_bits(small, plan)


def as_floats(plan: afm.RankPlan) -> afm.RankPlan:
    """The same ranks without integers."""
    floats = {path: replace(layer, bits="float", scale="row") for path, layer in plan.items()}
    return afm.RankPlan({path: layer for path, layer in floats.items() if layer != afm.LayerPlan()})


def folding(model: afm.Model) -> dict:
    """What planning must know of a model to size it after fold()."""
    if model.kind != "dcn":
        return {"fold": True, "keep_basis": model.kind == "deepfm"}
    if model.options.cross == "matrix":  # fold() keeps it as it is
        return {}
    first = ["mlp.layers.0"] if model.options.hidden else []
    return {"fold": True, "cross_layers": model.options.cross_layers, "first_layers": [*first, "head"]}


def table_share(model: afm.Model) -> float:
    """Of the parameters, the share that is in the tables."""
    sizes = {size.group: size.parameters for size in afm.size_by_group(model)}
    return (sizes.get("embedding", 0) + sizes.get("wide", 0)) / sum(sizes.values())


def has_wide_weights(model: afm.Model) -> bool:
    return model.kind in ("deepfm", "wide_deep")


def measure(model: afm.Model, train_set: afm.Dataset, *, metric: bool = True) -> afm.Statistics:
    """What a recipe with or without the metric may ask for, over the whole training set."""
    return afm.collect_statistics(model, train_set, whole_training_set=True, metric=metric, input_moments=metric)


def finished(model: afm.Model) -> afm.Model:
    """The model as it is served: batch norm folded into the layers before it."""
    return afm.fold_batch_norm(model).model.to(model.device)


def file_bytes(model: afm.Model) -> int:
    """Size of the model file, everything in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        afm.save_model(model, path)
        return path.stat().st_size


def shrink_to_file(
    model: afm.Model, statistics: afm.Statistics, recipe: Recipe, target: int, rows: afm.Dataset
) -> tuple[afm.Model, afm.RankPlan]:
    """The best model whose finished file has at most `target` bytes, as closely as ranks allow; what the recipe leaves
    to be measured is measured on some of `rows`.

    Raises ValueError when no plan gives such a file.
    """
    found, refusals = [], []
    budget = target
    for choice in recipe.choices():
        try:
            small, plan, budget = shrink_by(choice, model, statistics, target, start=budget)
            found.append((small, plan))
        except ValueError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    if len(found) == 1:
        return found[0]

    def loss(each: tuple[afm.Model, afm.RankPlan]) -> float:
        small, plan = each
        if not statistics.has_metric:
            return afm.mean_kl(model, small, rows, max_rows=ROWS)
        return predict_rise(model, small, statistics, plan, rows).after_training

    return min(found, key=loss)


def shrink_by(
    recipe: Recipe, model: afm.Model, statistics: afm.Statistics, target: int, start: int
) -> tuple[afm.Model, afm.RankPlan, int]:
    """shrink_to_file() of a recipe that leaves nothing to be measured, and the budget that led there from `start`.

    Planning counts tensors; the file also holds names, schema and options, and folding takes away some of what was
    counted. So the budget of the plan is moved until the file fits.

    Raises ValueError when no plan gives such a file.
    """
    low, high = 0, None  # budgets that fit, or are too small to plan for, and budgets that do not fit
    best, best_size, refusal = None, 0, ""
    budget = start
    for _ in range(TRIES):
        size = 0
        try:
            plan = recipe.plan(model, statistics, bytes=budget)
            small = recipe.apply(model, statistics, plan)
            size = file_bytes(finished(small) if recipe.fold else small)
        except ValueError as error:
            refusal = str(error)
        if size <= target:
            low = budget
            if size > best_size:
                best, best_size = (small, plan, budget), size
        else:
            high = budget
        if best_size >= CLOSE * target:
            break
        budget = next_budget(budget, size, int(AIM * target), low, high)
    if best is None:
        raise ValueError(f"no plan gives a model file of at most {target:,} bytes ({refusal or 'all are larger'})")
    return best


def next_budget(budget: int, size: int, target: int, low: int, high: int | None) -> int:
    """What to plan for next, when `budget` gave a file of `size` bytes (0: none at all).

    A file differs from its budget by nearly the same bytes whatever the budget is; where that leads out of the bracket,
    its middle.
    """
    moved = budget + target - size if size else int(budget * 1.25)
    if high is None:
        return max(moved, low + 1)
    return moved if low < moved < high else (low + high) // 2

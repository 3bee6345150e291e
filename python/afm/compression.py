"""Statistics -> rank plan -> factor pairs -> comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afm import _core
from afm.foreign_collect import collect
from afm.foreign_pool import pooled, pooled_plan, pools_for_planning, pools_of_plan, unpooled_plan, unpooled_summary
from afm.foreign_rewrite import factorized_copy
from afm.models import Model, core_of, wrap
from afm.plan import LayerPlanLike, RankPlan, plain_plan


def collect_statistics(
    model: Model | nn.Module,
    dataset: _core.Dataset | Iterable[Any] | None = None,
    *,
    max_rows: int = 0,
    batch_size: int = 4096,
    next_logits: Callable[[], torch.Tensor | None] | None = None,
    whole_training_set: bool = False,
    forward: Callable[[nn.Module, Any], Any] | None = None,
) -> _core.Statistics:
    """What the outputs of a model's layers look like, in evaluation mode, without gradient.

    Args:
        model: any libafm model, or any other PyTorch model; dense layers are measured.
        dataset: calibration rows, usually the training set; of another library's model an iterable of batches, as
            afm.compress takes them.
        max_rows: at most so many of them, in a shuffled order; 0 = all.
        batch_size: rows at a time.
        next_logits: instead of a dataset: runs the model on one batch and returns the logits; None at the end.
        whole_training_set: the rows are all that the model was trained on: an id that they do not hold was never
            trained, and factorize() gives it the mean of its field.
        forward: forward(model, batch) runs another library's model, as for afm.compress.

    Raises:
        DataError: for a dataset that does not fit, no batch, or outputs that are not finite (naming the layer).
    """
    if (dataset is None) == (next_logits is None):
        raise ValueError("collect_statistics takes either a dataset or next_logits")
    if not _is_ours(model):
        if dataset is None or max_rows:
            raise ValueError("collect_statistics takes batches, and all of them, for a model that is not of libafm")
        return collect(model, dataset, forward, whole_training_set)
    if forward is not None:
        raise ValueError("forward is for models that are not of libafm; use next_logits")
    if dataset is None:
        return _core.collect_statistics(core_of(model), next_logits, whole_training_set)
    return _core.collect_statistics(core_of(model), dataset, max_rows, batch_size, whole_training_set)


def plan_ranks(
    statistics: _core.Statistics,
    *,
    ratio: float | None = None,
    bytes: int | None = None,
    energy: float | None = None,
    policy: str = "energy",
    basis: str = "field",
    activation: str = "none",
    skip: Sequence[str] = (),
) -> RankPlan:
    """Ranks for every layer that gets smaller by them, from one budget.

    Args:
        statistics: of the model.
        ratio: the budget, as parameters before / after; or
        bytes: as the size of parameters and buffers after; or
        energy: as the share of output variance that every layer keeps; in other libraries' models, tables of equal
            width beside each other are one layer.
        policy: "energy" (every layer keeps the same share of its variance) or "uniform" (of its rank).
        basis: of embeddings: "field", or "shared" by all fields (tables of equal width in other libraries' models).
        activation: between the factors of linear layers: "none", "relu" or "shifted_relu".
        skip: paths of layers, and of everything below, to leave alone.

    Raises:
        ValueError: for a bad option, or a budget that cannot be reached (it says what can).
    """
    pools = pools_for_planning(statistics, basis, skip)
    plan = _core.plan_ranks(pooled(statistics, pools), ratio, bytes, energy, policy, basis, activation, list(skip))
    return unpooled_plan(statistics, RankPlan.from_plain(plan), pools)


def summarize(statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike]) -> list[_core.LayerSummary]:
    """One entry per layer, and per field of an embedding, of what a plan does."""
    plan = RankPlan(plan)
    pools = pools_of_plan(statistics, plan)
    lines = _core.summarize(pooled(statistics, pools), pooled_plan(plan, pools).to_plain())
    return unpooled_summary(lines, pools, list(statistics.layers)) if pools else lines


def planned_parameters(statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike]) -> int:
    """Parameters of the whole model after the plan."""
    plan = RankPlan(plan)
    pools = pools_of_plan(statistics, plan)
    return _core.planned_parameters(pooled(statistics, pools), pooled_plan(plan, pools).to_plain())


def factorize(
    model: Model | nn.Module,
    statistics: _core.Statistics,
    plan: Mapping[str, LayerPlanLike],
    *,
    method: str = "mimic",
) -> Model | nn.Module:
    """A smaller copy of a model: the layers that `plan` names become factor pairs.

    An optimizer made before holds the old layers: make a new one from the copy, and see afm.check_optimizer.

    Args:
        model: stays as it is.
        statistics: of that model.
        plan: from plan_ranks() or RankPlan.read(), or your own.
        method: "mimic" (Atomic Feature Mimicking) or "svd" (of the weights alone, the baseline).
    """
    if not _is_ours(model):
        return factorized_copy(model, statistics, RankPlan(plan), method).model
    return wrap(_core.factorize(core_of(model), statistics, plain_plan(plan), method))


def _is_ours(model: Any) -> bool:
    """Or nothing that could be, which core_of() refuses."""
    return isinstance(model, Model) or not isinstance(model, nn.Module)


def compare(before: Model, after: Model, dataset: _core.Dataset) -> _core.Comparison:
    """Quality, size and speed of two models on the same rows, and how far their answers differ."""
    return _core.compare(core_of(before), core_of(after), dataset)


def report_on(model: Model, dataset: _core.Dataset) -> _core.ModelReport:
    """Quality, size and speed of one model."""
    return _core.report_on(core_of(model), dataset)

"""Statistics -> rank plan -> factor pairs -> comparison."""

from collections.abc import Callable, Mapping, Sequence

import torch

from afm import _core
from afm.models import Model, core_of, wrap
from afm.plan import LayerPlanLike, RankPlan, plain_plan


def collect_statistics(
    model: Model,
    dataset: _core.Dataset | None = None,
    *,
    max_rows: int = 0,
    batch_size: int = 4096,
    next_logits: Callable[[], torch.Tensor | None] | None = None,
    whole_training_set: bool = False,
) -> _core.Statistics:
    """What the outputs of a model's layers look like, in evaluation mode, without gradient.

    Args:
        model: any libafm model; dense layers are measured.
        dataset: calibration rows, usually the training set.
        max_rows: at most so many of them, in a shuffled order; 0 = all.
        batch_size: rows at a time.
        next_logits: instead of a dataset: runs the model on one batch and returns the logits; None at the end.
        whole_training_set: the rows are all that the model was trained on: an id that they do not hold was never
            trained, and factorize() gives it the mean of its field.

    Raises:
        DataError: for a dataset that does not fit, no batch, or outputs that are not finite (naming the layer).
    """
    if (dataset is None) == (next_logits is None):
        raise ValueError("collect_statistics takes either a dataset or next_logits")
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
        energy: as the share of output variance that every layer keeps.
        policy: "energy" (every layer keeps the same share of its variance) or "uniform" (of its rank).
        basis: of embeddings: "field", or "shared" by all fields.
        activation: between the factors of linear layers: "none", "relu" or "shifted_relu".
        skip: paths of layers, and of everything below, to leave alone.

    Raises:
        ValueError: for a bad option, or a budget that cannot be reached (it says what can).
    """
    return RankPlan.from_plain(
        _core.plan_ranks(statistics, ratio, bytes, energy, policy, basis, activation, list(skip))
    )


def summarize(statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike]) -> list[_core.LayerSummary]:
    """One entry per layer, and per field of an embedding, of what a plan does."""
    return _core.summarize(statistics, plain_plan(plan))


def planned_parameters(statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike]) -> int:
    """Parameters of the whole model after the plan."""
    return _core.planned_parameters(statistics, plain_plan(plan))


def factorize(
    model: Model, statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike], *, method: str = "mimic"
) -> Model:
    """A smaller copy of a model: the layers that `plan` names become factor pairs.

    Args:
        model: stays as it is.
        statistics: of that model.
        plan: from plan_ranks() or RankPlan.read(), or your own.
        method: "mimic" (Atomic Feature Mimicking) or "svd" (of the weights alone, the baseline).
    """
    return wrap(_core.factorize(core_of(model), statistics, plain_plan(plan), method))


def compare(before: Model, after: Model, dataset: _core.Dataset) -> _core.Comparison:
    """Quality, size and speed of two models on the same rows, and how far their answers differ."""
    return _core.compare(core_of(before), core_of(after), dataset)


def report_on(model: Model, dataset: _core.Dataset) -> _core.ModelReport:
    """Quality, size and speed of one model."""
    return _core.report_on(core_of(model), dataset)

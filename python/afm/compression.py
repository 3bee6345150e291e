"""Statistics -> rank plan -> factor pairs -> comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from afm import _core
from afm.foreign_collect import collect
from afm.foreign_pool import pooled, pooled_plan, pools_for_planning, pools_of_plan, unpooled_plan, unpooled_summary
from afm.foreign_rewrite import factorized_copy
from afm.models import Model, core_of, wrap
from afm.plan import LayerPlanLike, RankPlan, plan_text


def collect_statistics(
    model: Model | nn.Module,
    dataset: _core.Dataset | Iterable[Any] | None = None,
    *,
    max_rows: int = 0,
    batch_size: int = 4096,
    next_logits: Callable[[], torch.Tensor | None] | None = None,
    whole_training_set: bool = False,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    metric: bool = False,
    input_moments: bool = False,
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
        metric: also the Gauss-Newton matrix of the logloss in each output, from one backward pass per batch: what
            loss-weighted ranks are planned from.
        input_moments: also the covariance of each linear layer's input, for plans with fewer hidden units.

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
        return _core.collect_statistics(core_of(model), next_logits, whole_training_set, metric, input_moments)
    return _core.collect_statistics(
        core_of(model), dataset, max_rows, batch_size, whole_training_set, metric, input_moments
    )


def plan_ranks(
    statistics: _core.Statistics,
    *,
    ratio: float | None = None,
    bytes: int | None = None,
    macs: int | None = None,
    predicted_logloss: float | None = None,
    energy: float | None = None,
    policy: str = "auto",
    basis: str = "field",
    activation: str = "none",
    skip: Sequence[str] = (),
    joint: bool = False,
    tiers: int = 0,
    embedding_bits: str = "float",
    mlp_bits: str = "float",
    embedding_scale: str = "row",
    mlp_scale: str = "row",
    fold: bool = False,
    keep_basis: bool = False,
    cross_layers: int = 0,
    first_layers: Sequence[str] = (),
    units: bool = False,
    model: Model | None = None,
    dataset: _core.Dataset | None = None,
) -> RankPlan:
    """Ranks for every layer that gets smaller by them, from one budget.

    Args:
        statistics: of the model.
        ratio: the budget, as parameters before / after; or
        bytes: as the size of parameters and buffers after, integers packed; or
        macs: as multiply-adds per row; or
        predicted_logloss: as the rise of the logloss that may be predicted of ranks (predicted_change tells what
            integers add); or
        energy: as the share of output variance that every layer keeps; in other libraries' models, tables of equal
            width beside each other are one layer.
        policy: "loss" (the least predicted rise of the logloss; needs statistics with a metric), "energy" (every layer
            keeps the same share of its variance), "uniform" (of its rank) or "measured" (the KL divergence of the model
            with each layer alone changed, at eight ranks); "auto" is loss where that is possible.
        basis: of embeddings: "field", or "shared" by all fields (tables of equal width in other libraries' models).
        activation: between the factors of linear layers: "none", "relu" or "shifted_relu".
        skip: paths of layers, and of everything below, to leave alone.
        joint: wide weights are decoded from the latents of the embedding.
        tiers: blocks of ids per field at most, of which rarer ones keep fewer coordinates; 0 = none.
        embedding_bits: "float", "int8" or "int4", of an embedding's rows.
        mlp_bits: of the weights of linear layers.
        embedding_scale: of the integers of an embedding's rows: one per "row" or per "column".
        mlp_scale: of those of linear layers.
        fold: the sizes are those after fold().
        keep_basis: with fold, of a model with a factorization machine: a DeepFM, which keeps bases of its fields.
        cross_layers: with fold, of a model with a cross network of vectors: a DCN's number of them.
        first_layers: with fold, the linear layers that read the embedding, a DCN's head among them; none = those
            that look like it.
        units: fewer hidden units are a choice too; needs input moments, and the model.
        model: that the statistics are of, for `units` and the policy "measured".
        dataset: whose rows the policy "measured" measures on.

    Raises:
        ValueError: for a bad option, or a budget that cannot be reached (it says what can).
    """
    if units and model is None:
        raise ValueError("plan_ranks with units=True needs the model that the statistics are of")
    measured = policy == "measured"
    if measured and (model is None or dataset is None):
        raise ValueError('plan_ranks with policy="measured" needs the model and a dataset')
    pools = pools_for_planning(statistics, basis, skip)
    plan = _core.plan_ranks(
        pooled(statistics, pools),
        core_of(model) if (units or measured) and model is not None else None,
        dataset if measured else None,
        ratio=ratio,
        bytes=bytes,
        macs=macs,
        predicted_logloss=predicted_logloss,
        energy=energy,
        policy=policy,
        basis=basis,
        activation=activation,
        skip=list(skip),
        joint=joint,
        tiers=tiers,
        embedding_bits=embedding_bits,
        mlp_bits=mlp_bits,
        embedding_scale=embedding_scale,
        mlp_scale=mlp_scale,
        fold=fold,
        keep_basis=keep_basis,
        cross_layers=cross_layers,
        first_layers=list(first_layers),
        units=units,
    )
    return unpooled_plan(statistics, RankPlan.from_json(plan), pools)


def summarize(
    statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike], *, model: Model | None = None
) -> list[_core.LayerSummary]:
    """One entry per layer, and per field of an embedding, of what a plan does. A plan with units needs the model."""
    plan = RankPlan(plan)
    pools = pools_of_plan(statistics, plan)
    lines = _core.summarize(pooled(statistics, pools), plan_text(pooled_plan(plan, pools)), _core_or_none(model))
    return unpooled_summary(lines, pools, list(statistics.layers)) if pools else lines


def planned_size(
    statistics: _core.Statistics,
    plan: Mapping[str, LayerPlanLike],
    *,
    model: Model | None = None,
    fold: bool = False,
    keep_basis: bool = False,
    cross_layers: int = 0,
    first_layers: Sequence[str] = (),
) -> _core.PlanSize:
    """Parameters, bytes and multiply-adds of the whole model after the plan, and after fold() where asked.

    A plan with units needs the model; the other arguments are those of plan_ranks.
    """
    plan = RankPlan(plan)
    pools = pools_of_plan(statistics, plan)
    return _core.planned_size(
        pooled(statistics, pools),
        plan_text(pooled_plan(plan, pools)),
        _core_or_none(model),
        fold=fold,
        keep_basis=keep_basis,
        cross_layers=cross_layers,
        first_layers=list(first_layers),
    )


def planned_parameters(statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike]) -> int:
    """Parameters of the whole model after the plan."""
    return planned_size(statistics, plan).parameters


def predicted_logloss(
    statistics: _core.Statistics, plan: Mapping[str, LayerPlanLike], *, model: Model | None = None
) -> float:
    """Predicted rise of the logloss, without training on. The statistics must have a metric.

    A plan with units needs the model.
    """
    return _core.predicted_logloss(statistics, plan_text(plan), _core_or_none(model))


def predicted_change(
    before: Model, after: Model, dataset: _core.Dataset, *, max_rows: int = 20_000
) -> _core.PredictedChange:
    """What another form of a model's layers does to the logloss, to second order: integers, or factor pairs.

    Each layer of `after` gets the input that it has in `before`; how its error moves the logit, squared and weighted by
    p (1 - p) / 2, is what it loses. Both are folded or none is, and both have the same hidden units.

    Args:
        before: such as with_bits(after, {}), the same model without integers.
        after: stays as it is, as `before` does.
        dataset: calibration rows.
        max_rows: at most so many of them, the same ones each time; 0 = all.
    """
    return _core.predicted_change(core_of(before), core_of(after), dataset, max_rows)


def with_bits(model: Model, plan: Mapping[str, LayerPlanLike]) -> Model:
    """A copy whose layers store their numbers as `plan` says (bits and scale, nothing else of it).

    Layers that it does not name are of floats: those that training changes, so that each is rounded once.
    """
    return wrap(_core.with_bits(core_of(model), plan_text(plan)))


def _core_or_none(model: Model | None) -> _core.CoreModel | None:
    return None if model is None else core_of(model)


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
    return wrap(_core.factorize(core_of(model), statistics, plan_text(plan), method))


@dataclass(frozen=True)
class Folded:
    """What fold() gives.

    Args:
        model: the folded model.
        refused: parts that stay as they were, each with a reason.
        requantized: layers of integers whose weights changed and were rounded anew.
    """

    model: Model
    refused: list[_core.Refusal]
    requantized: list[str]


def fold(model: Model) -> Folded:
    """The same function without the bases of the embedding: what reads it reads the latents.

    What cannot be folded is refused by name, and stays as it was.
    """
    core, refused, requantized = _core.fold(core_of(model))
    return Folded(wrap(core), refused, requantized)


def fold_batch_norm(model: Model) -> Folded:
    """The same function in evaluation without batch norms: each goes into the layer before it."""
    core, refused, requantized = _core.fold_batch_norm(core_of(model))
    return Folded(wrap(core), refused, requantized)


def refit(
    compressed: Model,
    original: Model,
    dataset: _core.Dataset,
    statistics: _core.Statistics,
    *,
    biases: bool = True,
    first_layer: bool = True,
    later_layers: bool = True,
    batch_norm: bool = True,
    calibration: bool = True,
    ridge: float = 1e-2,
    max_rows: int = 200_000,
) -> list[_core.RefitStep]:
    """Fits the parts of a compressed model, in place, to what the original's give on the same rows.

    For use without training on. Each step is undone where it makes KL(original || compressed) larger.

    Args:
        compressed: from factorize().
        original: what it was made from.
        dataset: rows to fit on, such as the training set.
        statistics: of the original.
        biases: layers get back the mean of their outputs.
        first_layer: layers that read the embedding are fitted by ridge regression.
        later_layers: the others by reduced-rank regression.
        batch_norm: running statistics are those of the compressed inputs.
        calibration: the logit is scaled and shifted.
        ridge: pull towards the weights there are.
        max_rows: of the dataset, drawn at random; 0 = all.
    """
    return _core.refit(
        core_of(compressed),
        core_of(original),
        dataset,
        statistics,
        biases=biases,
        first_layer=first_layer,
        later_layers=later_layers,
        batch_norm=batch_norm,
        calibration=calibration,
        ridge=ridge,
        max_rows=max_rows,
    )


def _is_ours(model: Any) -> bool:
    """Or nothing that could be, which core_of() refuses."""
    return isinstance(model, Model) or not isinstance(model, nn.Module)


def compare(before: Model, after: Model, dataset: _core.Dataset) -> _core.Comparison:
    """Quality, size and speed of two models on the same rows, and how far their answers differ."""
    return _core.compare(core_of(before), core_of(after), dataset)


def mean_kl(before: Model, after: Model, dataset: _core.Dataset, *, max_rows: int = 0) -> float:
    """KL(before || after), nats per row, over a dataset or `max_rows` rows of it (0 = all), the same ones each time."""
    return _core.mean_kl(core_of(before), core_of(after), dataset, max_rows)


def report_on(model: Model, dataset: _core.Dataset) -> _core.ModelReport:
    """Quality, size and speed of one model."""
    return _core.report_on(core_of(model), dataset)

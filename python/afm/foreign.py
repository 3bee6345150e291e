"""Compression of any trained PyTorch model in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afm import _core, compression
from afm.factorized import Factorized
from afm.foreign_batches import Forward
from afm.foreign_collect import collect
from afm.foreign_record import Sample, rows_of_output
from afm.foreign_report import CompressionReport, LayerReport
from afm.foreign_rewrite import checked_plan, known_layers, pairs_for
from afm.foreign_swap import Swap, copy_with
from afm.foreign_walk import ModelLayers, parameters_under, same_names, unwrapped
from afm.plan import LayerPlanLike, RankPlan


def compress(
    model: nn.Module,
    batches: Iterable[Any] | _core.Statistics,
    *,
    ratio: float | None = None,
    bytes: int | None = None,
    energy: float | None = None,
    plan: Mapping[str, LayerPlanLike] | None = None,
    forward: Forward | None = None,
    skip: Sequence[str] = (),
    policy: str = "energy",
    activation: str | None = None,
    basis: str = "field",
) -> tuple[nn.Module, CompressionReport]:
    """A smaller copy of a trained PyTorch model, and a report on it.

    Each nn.Linear that gets smaller becomes nn.Sequential of two nn.Linear, each nn.Conv1d of width 1 one of two
    nn.Conv1d, each nn.Embedding a small module of an nn.Embedding and an nn.Linear, with the least error of the layer's
    outputs on the batches.

    An optimizer made before keeps training the old layers, which nothing uses any more: make a new one from the copy,
    and let report.check_optimizer(optimizer) make sure. A step of an old one without gradients raises ValueError. One
    that is an attribute of the model is rebuilt in the copy over its parameters; report.optimizers names it.

    Args:
        model: any module; it stays as it is. DataParallel and torch.compile wrappers are taken off.
        batches: calibration data, such as a DataLoader; a few thousand rows like those of training. Of very many rows
            every layer's moments take an even share, so that a whole epoch costs little more than its forward passes.
            Or statistics from afm.collect_statistics(model, batches), to try several budgets.
        ratio: the budget, as parameters before / after; or
        bytes: as the size of parameters and buffers after; or
        energy: as the share of its output's variance that every layer keeps (tables of equal width beside each other
            are one layer); or
        plan: the ranks themselves, layer name -> rank or afm.LayerPlan.
        forward: forward(model, batch) runs the model. By default a tensor is its argument, a tuple or list are its
            arguments (labels at the end are left out), and a dict its keywords, or its argument where it takes one.
        skip: names of layers, or of what holds them, to leave alone.
        policy: "energy" (every layer keeps the same share of its variance) or "uniform" (of its rank).
        activation: between the two layers of a pair, not of embeddings: "none", "relu" or "shifted_relu" (which cuts
            nothing of the calibration rows at first).
        basis: "field" (a table has its own) or "shared" (tables of equal width have one).

    Returns:
        The copy, in the training mode of the model, and a report that prints as a table.

    Raises:
        ValueError: for a bad option, or a budget that cannot be reached (it says what can).
        DataError: for no batch, or a layer whose outputs are not finite.

    Example:
        small, report = afm.compress(model, train_loader, ratio=4)
        print(report)
        optimizer = torch.optim.Adam(afm.parameter_groups(small), lr=1e-3)
    """
    budgets = {"ratio": ratio, "bytes": bytes, "energy": energy, "plan": plan}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"compress takes exactly one of ratio, bytes, energy and plan, got {', '.join(given) or 'none'}"
        )
    if plan is not None and (skip or activation is not None or basis != "field"):
        raise ValueError("skip, activation and basis must not be given with a plan: they are in the plan")
    model = unwrapped(model)
    statistics = batches if isinstance(batches, _core.Statistics) else collect(model, batches, forward)
    layers = known_layers(model, statistics)
    if plan is None:
        options = {"policy": policy, "activation": activation or "none", "basis": basis}
        budget = {given[0]: budgets[given[0]]}
        plan = compression.plan_ranks(statistics, **budget, **options, skip=_first_names(skip, layers))
    ranks = checked_plan(RankPlan(plan), layers, statistics)
    swap = copy_with(model, layers, pairs_for(layers, statistics, ranks))
    return swap.model, _report(model, layers, statistics, ranks, swap)


def _first_names(roots: Sequence[str], layers: ModelLayers) -> list[str]:
    """What is named by any of its names is skipped by its first."""
    if isinstance(roots, str):
        raise TypeError(f"skip must be a sequence of names, got the string {roots!r}")
    known = {*layers.dense, *layers.left_alone}
    skipped: list[str] = []
    for root in roots:
        skipped += [name for name in same_names(layers, root) if name in known] or [root]
    return skipped


def _report(
    model: nn.Module, layers: ModelLayers, statistics: _core.Statistics, ranks: RankPlan, swap: Swap
) -> CompressionReport:
    samples = getattr(statistics, "samples", {})
    counted: set[int] = set()
    rows = []
    for line in compression.summarize(statistics, ranks):
        dense, pair = layers.dense[line.layer], swap.pairs.get(line.layer)
        rows.append(_layer_report(line, dense, pair, samples.get(line.layer), counted))
    after = list(swap.model.parameters())
    return CompressionReport(
        layers=rows,
        left_alone=dict(layers.left_alone),
        left_alone_parameters=parameters_under(model, layers.left_alone),
        plan=ranks,
        parameters_before=statistics.parameters,
        parameters_after=sum(p.numel() for p in after),
        bytes_before=statistics.bytes,
        bytes_after=sum(p.nbytes for p in after) + sum(b.nbytes for b in swap.model.buffers()),
        optimizers=swap.optimizers,
        notes=swap.notes,
        model=swap.model,
    )


def _layer_report(
    line: _core.LayerSummary, dense: nn.Module, pair: Factorized | None, sample: Sample | None, counted: set[int]
) -> LayerReport:
    parameters = [p for p in (pair or dense).parameters() if id(p) not in counted]
    counted.update(id(p) for p in parameters)
    shape = tuple(dense.weight.shape[:2])
    return LayerReport(
        name=line.layer,
        shape=shape,
        rank=None if pair is None else pair.rank,
        kept_energy=line.kept_energy,
        predicted_error=line.predicted_mse,
        measured_error=float("nan") if sample is None else _measured_error(dense, pair, sample),
        parameters_before=sum(p.numel() for p in dense.parameters()),
        parameters_after=sum(p.numel() for p in parameters),
    )


@torch.no_grad()
def _measured_error(dense: nn.Module, pair: Factorized | None, sample: Sample) -> float:
    if pair is None:
        return 0.0
    difference = pair(*sample).double() - dense(*sample).double()
    return float(rows_of_output(dense, difference).square().sum(-1).mean())

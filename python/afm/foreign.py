"""Compression of any trained PyTorch model in one call."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from afm import _core, compression
from afm.factorized import Factorized
from afm.foreign_collect import Calibration, Forward, call_model, collect
from afm.foreign_report import CompressionReport, LayerReport
from afm.foreign_rewrite import factorize_layers
from afm.foreign_walk import ModelLayers, layers_of, unwrapped
from afm.plan import LayerPlanLike, RankPlan


def compress(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    ratio: float | None = None,
    bytes: int | None = None,
    energy: float | None = None,
    plan: Mapping[str, LayerPlanLike] | None = None,
    forward: Forward | None = None,
    skip: Sequence[str] = (),
    policy: str = "energy",
) -> tuple[nn.Module, CompressionReport]:
    """A smaller copy of a trained PyTorch model, and a report on it.

    Each nn.Linear that gets smaller becomes nn.Sequential of two nn.Linear, each nn.Embedding a small module of an
    nn.Embedding and an nn.Linear, with the least error of the layer's outputs on the batches.

    An optimizer made before keeps training the old layers, which nothing uses any more: make a new one from the copy,
    and let report.check_optimizer(optimizer) make sure.

    Args:
        model: any module; it stays as it is. DataParallel wrappers are taken off.
        batches: calibration data, such as a DataLoader; a few thousand rows like those of training.
        ratio: the budget, as parameters before / after; or
        bytes: as the size of parameters and buffers after; or
        energy: as the share of its output's variance that every layer keeps; or
        plan: the ranks themselves, layer name -> rank.
        forward: forward(model, batch) runs the model. By default a tensor is its argument, a tuple or list are its
            arguments, and a dict its keywords, or its argument where it takes one.
        skip: names of layers, or of what holds them, to leave alone.
        policy: "energy" (every layer keeps the same share of its variance) or "uniform" (of its rank).

    Returns:
        The copy, in the training mode of the model, and a report that prints as a table.

    Raises:
        ValueError: for a bad option, or a budget that cannot be reached (it says what can).
        DataError: for no batch, or a layer whose outputs are not finite.

    Example:
        small, report = afm.compress(model, train_loader, ratio=4, forward=lambda model, batch: model(batch[0]))
        print(report)
        optimizer = torch.optim.Adam(afm.parameter_groups(small), lr=1e-3)
    """
    budgets = {"ratio": ratio, "bytes": bytes, "energy": energy, "plan": plan}
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"compress takes exactly one of ratio, bytes, energy and plan, got {', '.join(given) or 'none'}"
        )
    small = copy.deepcopy(unwrapped(model))
    layers = layers_of(small)
    calibration = collect(small, layers, batches, forward or call_model)
    statistics = calibration.statistics
    if plan is None:
        budget = {given[0]: budgets[given[0]]}
        ranks = compression.plan_ranks(statistics, **budget, policy=policy, skip=_first_names(skip, layers))
    else:
        ranks = _checked_plan(plan, layers, skip)
    summary = compression.summarize(statistics, ranks)
    dense = dict(layers.dense)
    small, pairs = factorize_layers(small, dense, statistics, {name: layer.ranks[0] for name, layer in ranks.items()})
    rows = [_layer_report(line, dense[line.layer], pairs.get(line.layer), calibration) for line in summary]
    after = list(small.parameters())
    buffers = statistics.bytes - statistics.parameter_bytes
    report = CompressionReport(
        layers=rows,
        left_alone=dict(layers.left_alone),
        plan=ranks,
        parameters_before=statistics.parameters,
        parameters_after=sum(p.numel() for p in after),
        bytes_before=statistics.bytes,
        bytes_after=sum(p.nbytes for p in after) + buffers,
        model=small,
    )
    return small, report


def _first_names(roots: Sequence[str], layers: ModelLayers) -> list[str]:
    """What is named by any of its names is skipped by its first."""
    if isinstance(roots, str):
        raise TypeError(f"skip must be a sequence of names, got the string {roots!r}")
    known = {*layers.dense, *layers.left_alone}
    skipped: list[str] = []
    for root in roots:
        names = [first for alias, first in layers.aliases.items() if alias == root or alias.startswith(root + ".")]
        skipped += [name for name in names if name in known] or [root]
    return skipped


def _checked_plan(plan: Mapping[str, LayerPlanLike], layers: ModelLayers, skip: Sequence[str]) -> RankPlan:
    if skip:
        raise ValueError("skip must not be given with a plan: leave the layers out of the plan")
    ranks = RankPlan()
    for name, layer in RankPlan(plan).items():
        first = layers.aliases.get(name, name)
        if first in layers.left_alone:
            raise ValueError(f"the plan names {name!r}, which must be left alone: {layers.left_alone[first]}")
        if layer.activation != "none" or layer.basis != "field":
            raise ValueError(f"the plan of {name!r} must have activation 'none' and basis 'field'")
        ranks[first] = layer
    return ranks


@torch.no_grad()
def _layer_report(
    line: _core.LayerSummary, dense: nn.Module, pair: Factorized | None, calibration: Calibration
) -> LayerReport:
    new, inputs = pair or dense, calibration.samples[line.layer]
    difference = new(inputs).double() - dense(inputs).double()
    return LayerReport(
        name=line.layer,
        shape=(line.rows, line.columns),
        rank=None if pair is None else line.rank,
        kept_energy=line.kept_energy,
        predicted_error=line.predicted_mse,
        measured_error=float(difference.square().sum(-1).mean()),
        parameters_before=line.parameters_before,
        parameters_after=sum(p.numel() for p in new.parameters()),
    )

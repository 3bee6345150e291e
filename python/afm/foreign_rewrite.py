"""The values of factor pairs, from weights and statistics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from afm import _core
from afm.factorized import Factorized, FactorizedEmbedding, FactorizedEmbeddingBag, FactorPair
from afm.foreign_pairs import empty_pairs, shared_groups
from afm.foreign_swap import Swap, copy_with
from afm.foreign_walk import ModelLayers, layers_of, unwrapped
from afm.plan import LayerPlan, RankPlan

METHODS = ("mimic", "svd")


def factorized_copy(model: nn.Module, statistics: _core.Statistics, plan: RankPlan, method: str = "mimic") -> Swap:
    """A copy of the model in which the layers that `plan` names are factor pairs."""
    model = unwrapped(model)
    layers = known_layers(model, statistics)
    return copy_with(model, layers, pairs_for(layers, statistics, checked_plan(plan, layers, statistics), method))


def known_layers(model: nn.Module, statistics: _core.Statistics) -> ModelLayers:
    """The layers of a model that the statistics are about; the others are left alone, with the reasons they give."""
    layers = layers_of(model)
    reasons = getattr(statistics, "left_alone", {})
    for name in [name for name in layers.dense if name not in statistics.layers]:
        layers.leave(name, reasons.get(name, "the statistics do not have it: no batch went through it"))
    return layers


def checked_plan(plan: Mapping[str, LayerPlan], layers: ModelLayers, statistics: _core.Statistics) -> RankPlan:
    """The plan by the first names of the layers. Raises ValueError for what does not fit them."""
    linear_only = getattr(statistics, "linear_only", set())
    checked = RankPlan()
    for name, layer in plan.items():
        first = layers.aliases.get(name, name)
        if first in layers.left_alone:
            raise ValueError(f"the plan names {name!r}, which must be left alone: {layers.left_alone[first]}")
        if first not in statistics.layers or first not in layers.dense:
            raise ValueError(f"the plan names {name!r}: there are no statistics of layer {name!r} of this model")
        dense = layers.dense[first]
        _check_shape(name, dense, statistics.layers[first])
        if layer.activation != "none" and (first in linear_only or not isinstance(dense, nn.Linear | nn.Conv1d)):
            raise ValueError(f"the plan of {name!r} must have activation 'none'")
        if layer.basis not in ("field", "shared") or (layer.basis == "shared" and not isinstance(dense, nn.Embedding)):
            raise ValueError(f"the plan of {name!r} must have basis 'field', or 'shared' for an nn.Embedding")
        checked[first] = _checked_ranks(name, layer, dense)
    return checked


def _check_shape(name: str, dense: nn.Module, statistics: _core.LayerStatistics) -> None:
    if statistics.is_embedding:
        shape: tuple[int, int] = (statistics.cardinalities[0], statistics.embedding_dim)
    else:
        shape = (statistics.out_features, statistics.in_features)
        shape = shape[::-1] if isinstance(dense, nn.EmbeddingBag) else shape
    if isinstance(dense, nn.Embedding) != statistics.is_embedding or tuple(dense.weight.shape[:2]) != shape:
        raise ValueError(f"layer {name!r} must have the shape that its statistics were collected on")


def _checked_ranks(name: str, layer: LayerPlan, dense: nn.Module) -> LayerPlan:
    if layer != LayerPlan(layer.ranks, layer.basis, layer.activation):
        raise ValueError(f"the plan of {name!r} must have ranks, a basis and an activation only, got {layer}")
    most = dense.embedding_dim if isinstance(dense, nn.Embedding) else min(dense.weight.shape[:2])
    if len(layer.ranks) != 1 or not 0 <= layer.ranks[0] <= most:
        raise ValueError(f"the plan of {name!r} must have one rank in [0, {most}], got {layer.ranks}")
    least = 1 if isinstance(dense, nn.Conv1d) else 0
    return LayerPlan([max(least, layer.ranks[0])], layer.basis, layer.activation)


@torch.no_grad()
def pairs_for(
    layers: ModelLayers, statistics: _core.Statistics, plan: RankPlan, method: str = "mimic"
) -> dict[str, Factorized]:
    """The factor pairs that a checked plan asks for."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    dense = {name: layers.dense[name] for name in plan}
    pairs = empty_pairs(dense, plan, lambda name: _has_offset(dense[name], method))
    spectra = _shared_spectra(dense, statistics, plan, method)
    for name, pair in pairs.items():
        own = statistics.layers[name]
        if isinstance(pair, FactorPair):
            _fill_linear(pair, dense[name], own, plan[name], method)
        elif isinstance(pair, FactorizedEmbeddingBag):
            _fill_bag(pair, dense[name], own, method)
        else:
            _fill_table(pair, dense[name], own, statistics.whole_training_set, spectra.get(name), method)
    return pairs


def _precise(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Half precision in float32: what it is rounded to is decided by the factor that holds it."""
    if tensor is None or tensor.dtype == torch.float64:
        return tensor if tensor is None else tensor.detach()
    return tensor.detach().float()


def _fill_linear(
    pair: FactorPair, dense: nn.Module, statistics: _core.LayerStatistics, plan: LayerPlan, method: str
) -> None:
    weight, bias = _precise(dense.weight).flatten(1), _precise(dense.bias)
    if method == "svd":
        factors = _core.truncate_weight(weight, bias, statistics.input_mean, plan.ranks[0])
    else:
        output = statistics.output[0]
        factors = _core.mimic_output(weight, bias, output.mean, _core.spectrum_of(output.covariance()), plan.ranks[0])
    down_bias, up_bias = factors.down_bias, factors.up_bias
    if plan.activation == "shifted_relu":
        shift = _lossless_shift(factors, statistics)
        down_bias, up_bias = down_bias + shift, up_bias - factors.up @ shift
    pair[0].weight.copy_(factors.down.reshape(pair[0].weight.shape))
    pair[0].bias.copy_(down_bias)
    pair[-1].weight.copy_(factors.up.reshape(pair[-1].weight.shape))
    pair[-1].bias.copy_(up_bias)


def _lossless_shift(factors: _core.Factors, statistics: _core.LayerStatistics) -> torch.Tensor:
    """[k], what to add to the latents so that none of a measured row is negative: nn.ReLU then cuts nothing.

    A latent is within radius / ||up_i|| of its mean, as in afm.factorize of our own models.
    """
    down, up = factors.down.double(), factors.up.double()
    mean = down @ statistics.input_mean.to(down.device) + factors.down_bias.double()
    scale = up.norm(dim=0)
    distance = torch.where(scale > 0, statistics.radius / scale, 0.0)
    return (distance - mean).clamp(min=0.0).to(factors.down.dtype)


def _fill_bag(
    pair: FactorizedEmbeddingBag, dense: nn.EmbeddingBag, statistics: _core.LayerStatistics, method: str
) -> None:
    table = _precise(dense.weight)
    moment = _second_moment(table) if method == "svd" else statistics.output[0].covariance()
    origin = torch.zeros(dense.embedding_dim, dtype=torch.float64)
    factors = _core.mimic_table(table, origin, _core.spectrum_of(moment), pair.rank)
    pair.rows.weight.copy_(factors.latent)
    pair.basis.weight.copy_(factors.basis.T)


def _has_offset(dense: nn.Module, method: str) -> bool:
    if not isinstance(dense, nn.Embedding):
        return False
    if dense.padding_idx is None:
        return method == "mimic"
    return bool(dense.weight[dense.padding_idx].any())


def _origin(dense: nn.Embedding) -> torch.Tensor | None:
    """The row of padding, from which the others are then counted."""
    return None if dense.padding_idx is None else _precise(dense.weight)[dense.padding_idx]


def _second_moment(table: torch.Tensor) -> torch.Tensor:
    """Of the rows, all equal: its eigenvectors are the right singular vectors of the table."""
    moments = _core.Moments()
    moments.add(table)
    return moments.covariance() + moments.mean.outer(moments.mean)


def _table_moment(dense: nn.Embedding, statistics: _core.LayerStatistics, method: str) -> torch.Tensor:
    if method == "mimic":
        return statistics.output[0].covariance()
    table, origin = _precise(dense.weight), _origin(dense)
    return _second_moment(table if origin is None else table - origin)


def _shared_spectra(
    dense: Mapping[str, nn.Module], statistics: _core.Statistics, plan: RankPlan, method: str
) -> dict[str, _core.Spectrum]:
    """Of the pooled covariance, for each table that shares its basis."""
    spectra = {}
    for names in shared_groups(dense, plan).values():
        pool = sum(_table_moment(dense[name], statistics.layers[name], method).cpu() for name in names)
        spectra.update(dict.fromkeys(names, _core.spectrum_of(pool)))
    return spectra


def _fill_table(
    pair: FactorizedEmbedding,
    dense: nn.Embedding,
    statistics: _core.LayerStatistics,
    whole_training_set: bool,
    spectrum: _core.Spectrum | None,
    method: str,
) -> None:
    spectrum = spectrum or _core.spectrum_of(_table_moment(dense, statistics, method))
    origin, table = _origin(dense), _precise(dense.weight)
    counts = statistics.id_counts[0].to(table.device)
    if whole_training_set and method == "mimic":
        table = _with_mean_of_seen(table, counts, dense.padding_idx)
    centred = table if origin is None else table - origin
    mean = statistics.output[0].mean if method == "mimic" else torch.zeros(dense.embedding_dim, dtype=torch.float64)
    factors = _core.mimic_table(centred, mean, spectrum, pair.rank)
    pair.rows.weight.copy_(factors.latent)
    if dense.padding_idx is not None:
        pair.rows.weight[dense.padding_idx] = 0.0
    if pair.basis.in_features == pair.rank:  # of a shared basis, the table with the most columns
        pair.basis.weight.copy_(factors.basis.T)
    if pair.offset_of_rows is not None:
        pair.offset_of_rows.copy_(factors.offset if origin is None else origin)


def _with_mean_of_seen(table: torch.Tensor, counts: torch.Tensor, padding_idx: int | None) -> torch.Tensor:
    """Ids that the training set does not hold have the mean row of those that it holds."""
    unseen = counts == 0
    if padding_idx is not None:
        unseen[padding_idx] = False
    if not bool(unseen.any()):
        return table
    mean = (counts @ table.double()) / counts.sum()
    return torch.where(unseen[:, None], mean.to(table.dtype), table)

"""Puts factor pairs in the place of dense layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from afm import _core
from afm.factorized import Factorized, FactorizedEmbedding, FactorizedLinear
from afm.foreign_walk import empty_pair, replace_modules


def _precise(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Half precision in float32: what it is rounded to is decided by the factor that holds it."""
    if tensor is None or tensor.dtype == torch.float64:
        return tensor if tensor is None else tensor.detach()
    return tensor.detach().float()


@torch.no_grad()
def _linear_pair(dense: nn.Linear, statistics: _core.LayerStatistics, rank: int) -> FactorizedLinear:
    output = statistics.output[0]
    spectrum = _core.spectrum_of(output.covariance())
    factors = _core.mimic_output(_precise(dense.weight), _precise(dense.bias), output.mean, spectrum, rank)
    pair = empty_pair(dense, rank)
    pair[0].weight.copy_(factors.down)
    pair[0].bias.copy_(factors.down_bias)
    pair[1].weight.copy_(factors.up)
    pair[1].bias.copy_(factors.up_bias)
    return pair


@torch.no_grad()
def _embedding_pair(dense: nn.Embedding, statistics: _core.LayerStatistics, rank: int) -> FactorizedEmbedding:
    output = statistics.output[0]
    table, padding = _precise(dense.weight), dense.padding_idx
    origin = None if padding is None else table[padding]
    centred = table if origin is None else table - origin
    factors = _core.mimic_table(centred, output.mean, _core.spectrum_of(output.covariance()), rank)
    offset = factors.offset if origin is None else origin
    has_bias = origin is None or bool(origin.any())
    pair = empty_pair(dense, rank, has_bias)
    pair.rows.weight.copy_(factors.latent)
    if padding is not None:
        pair.rows.weight[padding] = 0.0
    pair.basis.weight.copy_(factors.basis.T)
    if has_bias:
        pair.basis.bias.copy_(offset)
    return pair


def factorize_layers(
    model: nn.Module,
    dense: Mapping[str, nn.Module],
    statistics: _core.Statistics,
    ranks: Mapping[str, int],
) -> tuple[nn.Module, dict[str, Factorized]]:
    """Replaces the layers that `ranks` names, in place. Returns the model (another one if it is itself a layer)."""
    pairs: dict[str, Factorized] = {}
    for name, rank in ranks.items():
        make = _embedding_pair if isinstance(dense[name], nn.Embedding) else _linear_pair
        pairs[name] = make(dense[name], statistics.layers[name], rank)
    model = replace_modules(model, {dense[name]: pair for name, pair in pairs.items()})
    return model, pairs

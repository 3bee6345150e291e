"""Factor pairs without values, in the forms that a rank plan asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from afm.factorized import (
    Factorized,
    FactorizedConv1d,
    FactorizedEmbedding,
    FactorizedEmbeddingBag,
    FactorizedLinear,
    FactorPair,
    SharedBasisEmbedding,
    factorized_layers,
    like,
    without_values,
)
from afm.plan import LayerPlan, RankPlan


def shared_key(dense: nn.Embedding) -> tuple[Any, ...]:
    """Tables of the same key can share a basis."""
    return dense.embedding_dim, dense.weight.dtype, dense.weight.device


def shared_groups(dense: Mapping[str, nn.Module], plan: Mapping[str, LayerPlan]) -> dict[tuple, list[str]]:
    groups: dict[tuple, list[str]] = {}
    for name, layer in plan.items():
        if layer.basis == "shared":
            groups.setdefault(shared_key(dense[name]), []).append(name)
    return groups


def empty_pairs(
    dense: Mapping[str, nn.Module], plan: Mapping[str, LayerPlan], has_offset: Callable[[str], bool]
) -> dict[str, Factorized]:
    """What fits in the place of the layers that the plan names; `has_offset` says so of an embedding's name."""
    bases = {}
    for key, names in shared_groups(dense, plan).items():
        most = max(plan[name].ranks[0] for name in names)
        bases[key] = without_values(nn.Linear, most, key[0], bias=False, **like(dense[names[0]]))
        bases[key].requires_grad_(any(dense[name].weight.requires_grad for name in names))
        bases[key].train(dense[names[0]].training)
    return {name: _empty_pair(dense[name], layer, bases, has_offset(name)) for name, layer in plan.items()}


def _empty_pair(dense: nn.Module, layer: LayerPlan, bases: Mapping[tuple, nn.Linear], has_offset: bool) -> Factorized:
    rank = layer.ranks[0]
    if isinstance(dense, nn.Embedding):
        return _empty_table(dense, layer, bases, has_offset)
    if isinstance(dense, nn.EmbeddingBag):
        pair: Factorized = FactorizedEmbeddingBag.empty(dense, rank)
    else:
        kind = FactorizedConv1d if isinstance(dense, nn.Conv1d) else FactorizedLinear
        pair = kind.empty(dense, rank, layer.activation)
    return pair.requires_grad_(dense.weight.requires_grad).train(dense.training)


def _empty_table(
    dense: nn.Embedding, layer: LayerPlan, bases: Mapping[tuple, nn.Linear], has_offset: bool
) -> FactorizedEmbedding:
    trained = dense.weight.requires_grad
    if layer.basis == "shared":
        pair = SharedBasisEmbedding.with_basis(dense, layer.ranks[0], bases[shared_key(dense)], has_offset)
        pair.rows.requires_grad_(trained)
    else:
        pair = FactorizedEmbedding.empty(dense, layer.ranks[0], has_offset).requires_grad_(trained)
    if has_offset:
        pair.offset_of_rows.requires_grad_(trained and dense.padding_idx is None)
    pair.training = pair.rows.training = dense.training
    if layer.basis != "shared":
        pair.basis.training = dense.training
    return pair


def plan_of(model: nn.Module) -> RankPlan:
    """The plan that its factor pairs follow, by their first names."""
    return RankPlan({name: _layer_plan_of(pair) for name, pair in factorized_layers(model).items()})


def _layer_plan_of(pair: Factorized) -> LayerPlan:
    return LayerPlan(
        [pair.rank],
        basis="shared" if isinstance(pair, SharedBasisEmbedding) else "field",
        activation=pair.activation if isinstance(pair, FactorPair) else "none",
    )

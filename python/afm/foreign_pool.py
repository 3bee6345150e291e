"""Several embedding tables of equal width as the fields of one layer, as the planner takes them.

A model of ours has one embedding layer with a field per table. In other models every table is a layer; those beside
each other (in one ModuleDict or ModuleList) are planned as fields: they share one budget, their eigenvalues compete.
With a shared basis all tables of equal width are, and one basis serves them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from afm import _core
from afm.plan import LayerPlan, RankPlan

Pools = dict[str, list[str]]  # name of the pool -> the names of its tables


@dataclass(frozen=True)
class TableSummary:
    """afm.LayerSummary of a table that shares its basis."""

    layer: str
    field: int
    rows: int
    columns: int
    rank: int
    dense: bool
    kept_energy: float
    predicted_mse: float
    parameters_before: int
    parameters_after: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _is_single_table(layer: _core.LayerStatistics) -> bool:
    return layer.is_embedding and not layer.wide and len(layer.cardinalities) == 1


def pools_for_planning(statistics: _core.Statistics, basis: str, skip: Sequence[str]) -> Pools:
    """The tables that can pay, and are not skipped."""
    pools: Pools = defaultdict(list)
    for name, layer in statistics.layers.items():
        if not _is_single_table(layer) or any(name == root or name.startswith(root + ".") for root in skip):
            continue
        if 1 < layer.embedding_dim < layer.cardinalities[0]:
            where = "all tables" if basis == "shared" else f"{name.rpartition('.')[0]}.*"
            pools[f"{where} of width {layer.embedding_dim}"].append(name)
    return {pool: names for pool, names in pools.items() if len(names) > 1}


def pools_of_plan(statistics: _core.Statistics, plan: Mapping[str, LayerPlan]) -> Pools:
    """The tables that share a basis: those of equal width that the plan says so of."""
    pools: Pools = defaultdict(list)
    for name, layer in statistics.layers.items():
        if name in plan and plan[name].basis == "shared" and _is_single_table(layer):
            pools[f"shared basis of width {layer.embedding_dim}"].append(name)
    return dict(pools)


def pooled(statistics: _core.Statistics, pools: Pools) -> _core.Statistics:
    """Statistics with one layer for each pool."""
    if not pools:
        return statistics
    members = {name for names in pools.values() for name in names}
    layers = {name: layer for name, layer in statistics.layers.items() if name not in members}
    for pool, names in pools.items():
        tables = [statistics.layers[name] for name in names]
        layers[pool] = _core.LayerStatistics(
            is_embedding=True,
            cardinalities=[table.cardinalities[0] for table in tables],
            embedding_dim=tables[0].embedding_dim,
            id_counts=[table.id_counts[0] for table in tables],
            output=[table.output[0] for table in tables],
        )
    return _core.Statistics(
        layers,
        rows=statistics.rows,
        parameters=statistics.parameters,
        parameter_bytes=statistics.parameter_bytes,
        bytes=statistics.bytes,
        unreached=statistics.unreached,
        whole_training_set=statistics.whole_training_set,
    )


def unpooled_plan(statistics: _core.Statistics, plan: RankPlan, pools: Pools) -> RankPlan:
    """A plan for the tables instead of the pools; a table that does not get smaller stays dense."""
    linear_only = getattr(statistics, "linear_only", set())
    if not pools and not linear_only:
        return plan
    layers: dict[str, LayerPlan] = {}
    for name, layer in plan.items():
        if name not in pools:
            layers[name] = replace(layer, activation="none") if name in linear_only else layer
            continue
        for table, rank in zip(pools[name], layer.ranks, strict=True):
            if _pays(statistics.layers[table], rank, layer.basis):
                layers[table] = LayerPlan([rank], layer.basis)
    return RankPlan({name: layers[name] for name in statistics.layers if name in layers})


def _pays(table: _core.LayerStatistics, rank: int, basis: str) -> bool:
    rows, width = table.cardinalities[0], table.embedding_dim
    return rank < width and rank * rows + width + (0 if basis == "shared" else rank * width) < rows * width


def pooled_plan(plan: Mapping[str, LayerPlan], pools: Pools) -> RankPlan:
    """The plan in terms of the pools."""
    members = {name for names in pools.values() for name in names}
    layers = {name: layer for name, layer in plan.items() if name not in members}
    for pool, names in pools.items():
        layers[pool] = LayerPlan([plan[name].ranks[0] for name in names], plan[names[0]].basis)
    return RankPlan(layers)


def unpooled_summary(
    lines: Iterable[_core.LayerSummary], pools: Pools, order: Sequence[str]
) -> list[_core.LayerSummary | TableSummary]:
    """With the tables' own names, in the order of the layers."""
    named = []
    for line in lines:
        if line.layer in pools:
            values = {name: getattr(line, name) for name in TableSummary.__dataclass_fields__}
            named.append(TableSummary(**{**values, "layer": pools[line.layer][line.field], "field": 0}))
        else:
            named.append(line)
    places = {name: place for place, name in enumerate(order)}
    return sorted(named, key=lambda line: places[line.layer])

"""Rank plans: which layers of a model are factor pairs, of what rank, and how their numbers are stored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from typing import Any, TypeAlias

from afm import _core


@dataclass
class Tier:
    """A block of consecutive ids of a field; ids are sorted by falling count.

    Args:
        rows: ids in the block.
        rank: of these ids, at most that of the block before.
        shared: one stored row for the whole block.
    """

    rows: int
    rank: int
    shared: bool = False


@dataclass
class LayerPlan:
    """The ranks of one layer.

    Args:
        ranks: a linear layer has one, an embedding one per field; 0 is a constant; none: dense.
        basis: of an embedding, "field", "shared" or "none" (folded).
        activation: between the factors of a linear layer: "none", "relu" or "shifted_relu".
        joint: an embedding's wide weights are decoded from the latents like the values.
        tiers: of an embedding: none, or one list per field; an empty list is one tier.
        bits: of latent rows, or of the weights of a linear layer: "float", "int8" or "int4".
        scale: of integers, per "row" or per "column".
        units: an instruction to factorize(): keep so many units of this hidden layer; 0 = all.
    """

    ranks: list[int] = field(default_factory=list)
    basis: str = "field"
    activation: str = "none"
    joint: bool = False
    tiers: list[list[Tier]] = field(default_factory=list)
    bits: str = "float"
    scale: str = "row"
    units: int = 0


LayerPlanLike: TypeAlias = LayerPlan | int | Sequence[int]

_DEFAULTS = asdict(LayerPlan())


def _layer_plan(layer: str, value: LayerPlanLike) -> LayerPlan:
    if isinstance(value, LayerPlan):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return LayerPlan([value])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return LayerPlan(list(value))
    raise TypeError(f"the plan of {layer} must be a LayerPlan, a rank or a list of ranks, got {value!r}")


def _from_file(layer: Mapping[str, Any]) -> LayerPlan:
    """A layer as it is written: "rank" for a linear layer, "ranks" for an embedding."""
    values = dict(layer)
    if "rank" in values:
        values["ranks"] = [values.pop("rank")]
    tiers = [[Tier(**tier) for tier in blocks] for blocks in values.pop("tiers", [])]
    return LayerPlan(**values, tiers=tiers)


def _to_file(plan: LayerPlan) -> dict[str, Any]:
    values = {name: value for name, value in asdict(plan).items() if value != _DEFAULTS[name]}
    return values


class RankPlan(dict[str, LayerPlan]):
    """Layer path -> LayerPlan; a layer that is absent is dense.

    Example:
        plan = afm.RankPlan({"mlp.layers.1": 64, "embedding": [6, 3, 0, 1]})
        plan["mlp.layers.1"].ranks = [32]
        plan.write("plan.json")
    """

    def __init__(self, layers: Mapping[str, LayerPlanLike] | None = None):
        super().__init__({layer: _layer_plan(layer, value) for layer, value in (layers or {}).items()})

    @classmethod
    def from_json(cls, text: str) -> "RankPlan":
        """Raises FormatError for what is not a plan."""
        layers = json.loads(_core.checked_plan(text))["layers"]
        return cls({layer: _from_file(values) for layer, values in layers.items()})

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "RankPlan":
        """The same as afm.read_plan(path)."""
        return cls.from_json(_core.read_plan(path))

    def to_json(self) -> str:
        """As in a plan file. Raises FormatError for values that no plan may have."""
        return _core.checked_plan(plan_text(self))

    def write(self, path: str | PathLike[str]) -> None:
        _core.write_plan(path, plan_text(self))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Layer -> {"ranks": [...], "basis": "field", "activation": "none", ...}."""
        return {layer: asdict(_layer_plan(layer, value)) for layer, value in self.items()}

    def __repr__(self) -> str:
        return f"RankPlan({super().__repr__()})"


def plan_text(plan: Mapping[str, LayerPlanLike] | None) -> str:
    """Any mapping that RankPlan takes as the JSON that the extension takes."""
    layers = {layer: _to_file(_layer_plan(layer, value)) for layer, value in (plan or {}).items()}
    return json.dumps({"kind": "afm-rank-plan", "version": _core.FORMAT_VERSION, "layers": layers})


def read_plan(path: str | PathLike[str]) -> RankPlan:
    """Reads a plan file, as a person may have edited it. Raises FormatError that names file and mistake."""
    return RankPlan.read(path)


def write_plan(path: str | PathLike[str], plan: Mapping[str, LayerPlanLike]) -> None:
    """Writes a plan file: whole or not at all."""
    _core.write_plan(path, plan_text(plan))

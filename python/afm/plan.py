"""Rank plans: which layers of a model are factor pairs, and of what rank."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, TypeAlias

from afm import _core


@dataclass
class LayerPlan:
    """The ranks of one layer.

    Args:
        ranks: a linear layer has one, an embedding one per field; 0 is a constant.
        basis: of an embedding, "field" or "shared".
        activation: between the factors of a linear layer: "none", "relu" or "shifted_relu".
    """

    ranks: list[int]
    basis: str = "field"
    activation: str = "none"


Plain: TypeAlias = dict[str, tuple[list[int], str, str]]  # as the extension takes it
LayerPlanLike: TypeAlias = LayerPlan | int | Sequence[int]


def _layer_plan(layer: str, value: LayerPlanLike) -> LayerPlan:
    if isinstance(value, LayerPlan):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return LayerPlan([value])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return LayerPlan(list(value))
    raise TypeError(f"the plan of {layer} must be a LayerPlan, a rank or a list of ranks, got {value!r}")


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
    def from_plain(cls, plain: Plain) -> "RankPlan":
        return cls(
            {layer: LayerPlan(list(ranks), basis, activation) for layer, (ranks, basis, activation) in plain.items()}
        )

    @classmethod
    def from_json(cls, text: str) -> "RankPlan":
        """Raises FormatError for what is not a plan."""
        return cls.from_plain(_core.plan_from_json(text))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> "RankPlan":
        """The same as afm.read_plan(path)."""
        return cls.from_plain(_core.read_plan(path))

    def to_json(self) -> str:
        return _core.plan_to_json(self.to_plain())

    def write(self, path: str | PathLike[str]) -> None:
        _core.write_plan(path, self.to_plain())

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Layer -> {"ranks": [...], "basis": "field", "activation": "none"}."""
        return {layer: asdict(_layer_plan(layer, value)) for layer, value in self.items()}

    def to_plain(self) -> Plain:
        plans = {layer: _layer_plan(layer, value) for layer, value in self.items()}
        return {layer: (list(plan.ranks), plan.basis, plan.activation) for layer, plan in plans.items()}

    def __repr__(self) -> str:
        return f"RankPlan({super().__repr__()})"


def plain_plan(plan: Mapping[str, LayerPlanLike] | None) -> Plain:
    """Any mapping that RankPlan takes, checked."""
    return RankPlan(plan).to_plain()


def read_plan(path: str | PathLike[str]) -> RankPlan:
    """Reads a plan file, as a person may have edited it. Raises FormatError that names file and mistake."""
    return RankPlan.from_plain(_core.read_plan(path))


def write_plan(path: str | PathLike[str], plan: Mapping[str, LayerPlanLike]) -> None:
    """Writes a plan file: whole or not at all."""
    _core.write_plan(path, plain_plan(plan))

"""Compressed models of any class on disk: weights and rank plan, no code."""

from __future__ import annotations

import json
from os import PathLike

import torch
from torch import nn

from afm import _core
from afm.errors import FormatError
from afm.files import save_tensors
from afm.foreign_pairs import empty_pairs, plan_of
from afm.foreign_swap import copy_with
from afm.foreign_walk import DENSE, ModelLayers, unwrapped
from afm.plan import RankPlan

KIND = "afm-compressed-module"


def save_compressed(model: nn.Module, path: str | PathLike[str]) -> None:
    """Writes the weights and buffers of a model from compress(), and its ranks, as a safetensors file.

    A tensor that has several names is written once.

    Raises:
        ValueError: for a model whose state holds more than tensors.
    """
    model = unwrapped(model)
    state = model.state_dict(keep_vars=True)
    other = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise ValueError(f"save_compressed: the state of the model must hold tensors only, not {', '.join(other)}")
    first_names: dict[int, str] = {}
    for name, tensor in state.items():
        first_names.setdefault(id(tensor), name)
    same = {name: first_names[id(tensor)] for name, tensor in state.items() if first_names[id(tensor)] != name}
    metadata = {"kind": KIND, "plan": plan_of(model).to_json()}
    if same:
        metadata["same"] = json.dumps(same)
    save_tensors(path, {name: t.detach() for name, t in state.items() if name not in same}, metadata=metadata)


def load_compressed(fresh_model: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """A compressed model from a file.

    Args:
        fresh_model: the original model, built anew as before compression; stays as it is, and gives dtype and device.
            An optimizer that it holds is rebuilt in the result, one that it does not hold is to be made anew.
        path: from save_compressed().

    Raises:
        FormatError: for another kind of file, or one that does not fit: it lists every name.
    """
    file = _core.SafetensorsFile.open(path)
    if file.metadata.get("kind") != KIND:
        raise FormatError(f"{path} must be of kind {KIND}, got {file.metadata.get('kind')}")
    if file.has_checksum:
        file.verify()
    state = {name: file.tensor(name) for name in file.names()}
    state.update({name: state[first] for name, first in json.loads(file.metadata.get("same", "{}")).items()})
    model = _with_empty_pairs(unwrapped(fresh_model), RankPlan.from_json(file.metadata["plan"]), set(state), path)
    _check_state(model, state, path)
    model.load_state_dict(state)
    return model


def _with_empty_pairs(model: nn.Module, plan: RankPlan, names: set[str], path: str | PathLike[str]) -> nn.Module:
    modules = dict(model.named_modules(remove_duplicate=False))
    absent = [name for name in plan if not isinstance(modules.get(name), DENSE)]
    if absent:
        raise FormatError(
            f"{path} does not fit the model, which has no dense layer of these names: {', '.join(absent)}"
        )

    def has_offset(name: str) -> bool:
        prefix = f"{name}." if name else ""
        return f"{prefix}basis.bias" in names or f"{prefix}offset" in names

    dense = {name: modules[name] for name in plan}
    return copy_with(model, ModelLayers(dense, {}, {}), empty_pairs(dense, plan, has_offset)).model


def _check_state(model: nn.Module, state: dict[str, torch.Tensor], path: str | PathLike[str]) -> None:
    wanted = model.state_dict()
    mistakes = {
        "missing": sorted(wanted.keys() - state.keys()),
        "surplus": sorted(state.keys() - wanted.keys()),
        "of another shape": [
            f"{name} ({list(state[name].shape)} for {list(wanted[name].shape)})"
            for name in sorted(wanted.keys() & state.keys())
            if state[name].shape != wanted[name].shape
        ],
    }
    lines = [f"{kind}: {', '.join(names)}" for kind, names in mistakes.items() if names]
    if lines:
        raise FormatError(f"{path} does not fit the model; " + "; ".join(lines))

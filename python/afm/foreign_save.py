"""Compressed models of any class on disk: weights and rank plan, no code."""

from __future__ import annotations

import copy
from os import PathLike

import torch
from torch import nn

from afm import _core
from afm.errors import FormatError
from afm.factorized import factorized_layers
from afm.files import save_tensors
from afm.foreign_walk import empty_pair, replace_modules, unwrapped
from afm.plan import RankPlan

KIND = "afm-compressed-module"


def save_compressed(model: nn.Module, path: str | PathLike[str]) -> None:
    """Writes the weights and buffers of a model from compress(), and its ranks, as a safetensors file.

    Raises:
        ValueError: for a model whose state holds more than tensors.
    """
    model = unwrapped(model)
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise ValueError(f"save_compressed: the state of the model must hold tensors only, not {', '.join(other)}")
    plan = RankPlan({name: pair.rank for name, pair in factorized_layers(model).items()})
    save_tensors(path, state, metadata={"kind": KIND, "plan": plan.to_json()})


def load_compressed(fresh_model: nn.Module, path: str | PathLike[str]) -> nn.Module:
    """A compressed model from a file.

    Args:
        fresh_model: the original model, built anew as before compression; stays as it is, and gives dtype and device.
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
    model = copy.deepcopy(unwrapped(fresh_model))
    model = _with_empty_pairs(model, RankPlan.from_json(file.metadata["plan"]), set(state), path)
    _check_state(model, state, path)
    model.load_state_dict(state)
    return model


def _with_empty_pairs(model: nn.Module, plan: RankPlan, names: set[str], path: str | PathLike[str]) -> nn.Module:
    modules = dict(model.named_modules(remove_duplicate=False))
    absent = [name for name in plan if not isinstance(modules.get(name), nn.Linear | nn.Embedding)]
    if absent:
        raise FormatError(
            f"{path} does not fit the model, which has no dense layer of these names: {', '.join(absent)}"
        )
    pairs = {}
    for name, layer in plan.items():
        bias = f"{name + '.' if name else ''}basis.bias" in names
        pairs[modules[name]] = empty_pair(modules[name], layer.ranks[0], bias)
    return replace_modules(model, pairs)


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

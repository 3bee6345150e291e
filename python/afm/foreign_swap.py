"""A copy of a model with factor pairs in the place of dense layers, wherever the model holds them."""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from afm.factorized import Factorized
from afm.foreign_held import HeldTensors, Replaced, attributes_of
from afm.foreign_rebuild import watch_for_old_optimizers
from afm.foreign_walk import HELD, ModelLayers


@dataclass
class Swap:
    """A model with new layers.

    Args:
        model: the copy.
        pairs: the new layers by name.
        optimizers: those that the copy holds, rebuilt over its parameters: where -> what was done.
        notes: on other things that held the old layers or their tensors: where -> what was done, or is to be done.
    """

    model: nn.Module
    pairs: dict[str, Factorized]
    optimizers: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def copy_with(model: nn.Module, layers: ModelLayers, pairs: dict[str, Factorized]) -> Swap:
    """The copy has a pair wherever the model has the dense layer: under all of its names, and in lists, dicts and
    objects that attributes hold. Their old parameters there become the new ones, those of optimizers too."""
    dense = {name: layers.dense[name] for name in pairs}
    swap = Swap(model, pairs)
    swap.notes.update(_functions(model))
    # Note [Placeholders]: every other reference to an old parameter is copied as an empty one. HeldTensors puts the new
    # parameters in its place; one that is alive afterwards is somewhere that it does not see, and gets the old values.
    held = HeldTensors(_replaced(dense, pairs))
    swap.model = _copied(model, dense, pairs, held, swap.notes)
    held.renew(swap.model, _in_use(model, layers))
    swap.optimizers.update(held.optimizers)
    swap.notes.update(held.notes)
    _fill_what_is_left(held.forget(), swap.notes)
    watch_for_old_optimizers([p for layer in dense.values() for p in layer.parameters()])
    return swap


def _in_use(model: nn.Module, layers: ModelLayers) -> set[str]:
    names = tuple(f"{name}." for name, reason in layers.left_alone.items() if reason == HELD)
    return {name for name, _ in model.named_parameters() if name.startswith(names)}


def _replaced(dense: Mapping[str, nn.Module], pairs: Mapping[str, Factorized]) -> list[Replaced]:
    replaced = []
    for name, layer in dense.items():
        prefix = f"{name}." if name else ""
        new = {prefix + local: p for local, p in pairs[name].named_parameters()}
        weights = {local: p for local, p in new.items() if local.endswith("weight")}
        others = {local: p for local, p in new.items() if local not in weights}
        for kind, parameter in layer.named_parameters():
            same = weights if kind == "weight" else others
            trained = new if layer._parameters.get("bias") is None else same
            replaced.append(Replaced(prefix + kind, parameter, same, trained))
    return replaced


def _copied(
    model: nn.Module,
    dense: Mapping[str, nn.Module],
    pairs: Mapping[str, Factorized],
    held: HeldTensors,
    notes: dict[str, str],
) -> nn.Module:
    memo = {id(layer): pairs[name] for name, layer in dense.items()}
    memo.update((id(replaced.old), replaced.placeholder) for replaced in held.replaced)
    for _, value in attributes_of(model):
        if isinstance(value, torch.Tensor) and not value.is_leaf:  # which cannot be copied, and is of some batch
            memo[id(value)] = value.detach().clone()
        elif isinstance(value, DataLoader | Dataset):  # of training or validation: large, and the same for the copy
            memo[id(value)] = value
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception:  # whatever an attribute raises
        uncopied = _what_cannot_be_copied(model, memo)
        if not uncopied:
            raise
    for path, value in uncopied.items():
        memo[id(value)] = value
        notes[path] = f"a {type(value).__name__}, which cannot be copied: the copy holds the same one"
    return copy.deepcopy(model, dict(memo))


def _what_cannot_be_copied(model: nn.Module, memo: Mapping[int, object]) -> dict[str, object]:
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                found[f"{path}.{name}" if path else name] = value
    return found


def _functions(model: nn.Module) -> dict[str, str]:
    """Attributes that are functions over the original model, which a copy shares."""
    modules = {id(module) for module in model.modules()}
    notes = {}
    for path, value in attributes_of(model):
        if isinstance(value, types.FunctionType) and value.__closure__:
            cells = [cell.cell_contents for cell in value.__closure__ if _is_filled(cell)]
            if any(id(content) in modules for content in cells):
                notes[path] = "a function that holds layers of the original model: the copy goes on using those"
    return notes


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _fill_what_is_left(replaced: list[tuple[str, torch.Tensor, weakref.ref]], notes: dict[str, str]) -> None:
    """See Note [Placeholders]."""
    for name, old, placeholder in replaced:
        left = placeholder()
        if left is not None:
            left.data = old.detach().clone()
            notes[f"something that holds {name}"] = "it has the old values, which nothing trains any more"

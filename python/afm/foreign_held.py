"""What attributes of a model hold besides its modules: old parameters in lists and dicts, optimizers."""

from __future__ import annotations

import types
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from afm.foreign_rebuild import rebuild

MOST_VALUES = 200_000  # that are looked at
SIMPLE = (str, bytes, int, float, complex, bool, type(None))
OPAQUE = (type, torch.device, torch.dtype, types.FunctionType, types.BuiltinFunctionType, types.MethodType)
OF_MODULES = frozenset(vars(nn.Module())) - {"training"}  # attributes that every module has


@dataclass(eq=False)
class Replaced:
    """An old parameter.

    Args:
        name: in the model.
        old: the parameter of the original.
        same: the new ones of the same kind by name, weights for a weight and biases for a bias.
        trained: those that an optimizer takes over for it.
        placeholder: what copies hold of it until the new ones are put there.
    """

    name: str
    old: nn.Parameter
    same: dict[str, nn.Parameter]
    trained: dict[str, nn.Parameter]
    placeholder: nn.Parameter = field(init=False)

    def __post_init__(self) -> None:
        self.placeholder = nn.Parameter(self.old.detach().new_empty(0), requires_grad=False)

    def renamed(self, name: str) -> list[str] | None:
        """The new names of what was called `name`; None unless the parameter's name ends so."""
        if not (self.name == name or self.name.endswith("." + name)):
            return None
        start = len(self.name) - len(name)
        return [new[start:] for new in self.same]


def attributes_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every value that the modules' attributes hold, in lists, tuples, dicts and sets too, with its place."""
    seen: set[int] = set()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name not in OF_MODULES:
                yield from _values(value, f"{path}.{name}" if path else name, seen)


def _values(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, SIMPLE) or id(value) in seen or len(seen) > MOST_VALUES:
        return
    seen.add(id(value))
    yield path, value
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
    for entry in entries:
        yield from _values(entry, path, seen)


class HeldTensors:
    """Puts new parameters in the place of old ones in everything that a model's attributes hold."""

    def __init__(self, replaced: Sequence[Replaced]):
        self.replaced = replaced
        self.optimizers: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self._by_id = {id(r.placeholder): r for r in replaced}
        self._seen: set[int] = set()
        self._in_use: set[int] = set()
        self._renewed: Counter[str] = Counter()  # attribute -> how many old parameters were in it
        self._kept: list[tuple[str, str]] = []  # attribute, name of the old parameter that is still there

    def renew(self, model: nn.Module, in_use: set[str]) -> None:
        """`in_use`: parameters that the forward has from a list or dict: others there keep their places beside them."""
        self._in_use = {id(p) for name, p in model.named_parameters() if name in in_use}
        self._seen.update(id(module) for module in model.modules())  # each is looked into once, by its own name
        for path, module in model.named_modules():
            self._renew_attributes(module, path)
        for path, count in self._renewed.items():
            what = f"{count} old parameter{'s' if count > 1 else ''}"
            self.notes[path] = f"held {what}, now those of the factor pairs"
        for path, name in self._kept:
            self.notes[path] = f"still holds the old {name}, which the model does not use any more"

    def forget(self) -> list[tuple[str, torch.Tensor, weakref.ref]]:
        """Name, old parameter and a weak reference to the placeholder of each; all strong ones are gone."""
        left = [(r.name, r.old, weakref.ref(r.placeholder)) for r in self.replaced]
        for replaced in self.replaced:
            del replaced.placeholder
        self._by_id.clear()
        return left

    def _renew_attributes(self, owner: Any, path: str) -> None:
        for name, value in list(vars(owner).items()):
            if isinstance(owner, nn.Module) and name in OF_MODULES:
                continue
            new = self._new(value, f"{path}.{name}" if path else name)
            if new is not value:
                vars(owner)[name] = new

    def _new(self, value: Any, path: str) -> Any:
        """What belongs in the place of the value: itself, changed or not, or another one."""
        if isinstance(value, (*SIMPLE, *OPAQUE)):
            return value
        if id(value) in self._by_id:
            return self._old_values(self._by_id[id(value)], path)
        if isinstance(value, torch.Tensor | types.ModuleType):
            return value
        if type(value) is tuple or isinstance(value, frozenset):
            new = self._entries(value, path)
            return value if _is_same(new, value) else type(value)(new)
        if id(value) in self._seen or len(self._seen) > MOST_VALUES:
            return value
        self._seen.add(id(value))
        return self._changed(value, path)

    def _changed(self, value: Any, path: str) -> Any:
        """Changes a mutable value in place."""
        if isinstance(value, torch.optim.Optimizer):
            if rebuild(value, self._by_id):
                self.optimizers[path] = (
                    f"{type(value).__name__} rebuilt over the new parameters, with the same hyperparameters"
                )
        elif isinstance(value, list):
            new = self._entries(value, path)
            if not _is_same(new, value):
                value[:] = new
        elif isinstance(value, set):
            new = self._entries(value, path)
            if not _is_same(new, list(value)):
                value.clear()
                value.update(new)
        elif isinstance(value, dict):
            self._change_dict(value, path)
        elif hasattr(value, "__dict__"):
            self._renew_attributes(value, path)
        return value

    def _entries(self, values: Sequence[Any] | set | frozenset, path: str) -> list[Any]:
        """An old parameter becomes the new ones of its kind; (name, parameter) and such become several of these."""
        if any(id(value) in self._in_use for value in values):
            return [self._new(value, path) for value in values]
        new: list[Any] = []
        listed: set[int] = set()
        for value in values:
            replaced = self._by_id.get(id(value))
            rest = _simple_beside_one(value, self._by_id)
            if replaced is not None:
                new += [p for p in replaced.same.values() if id(p) not in listed]
            elif rest is not None:
                replaced = rest
                new += [entry for entry, p in _tuples(value, replaced) if id(p) not in listed]
            else:
                new.append(self._new(value, path))
                continue
            listed.update(id(p) for p in replaced.same.values())
            self._renewed[path] += 1
        return new

    def _change_dict(self, values: dict, path: str) -> None:
        new: dict[Any, Any] = {}
        for key, value in values.items():
            replaced = self._by_id.get(id(value))
            names = replaced.renamed(key) if replaced is not None and isinstance(key, str) else None
            if names is not None:
                new.update(zip(names, replaced.same.values(), strict=True))
                self._renewed[path] += 1
            elif id(key) in self._by_id:
                new.update(dict.fromkeys(self._by_id[id(key)].trained.values(), self._new(value, path)))
                self._renewed[path] += 1
            else:
                new[key] = self._new(value, f"{path}[{key!r}]")
        if list(new) != list(values) or any(new[key] is not values[key] for key in new):
            values.clear()
            values.update(new)

    def _old_values(self, replaced: Replaced, path: str) -> nn.Parameter:
        self._kept.append((path, replaced.name))
        return nn.Parameter(replaced.old.detach().clone(), replaced.old.requires_grad)


def _is_same(new: Sequence[Any], old: Sequence[Any]) -> bool:
    return len(new) == len(old) and all(a is b for a, b in zip(new, old, strict=True))


def _simple_beside_one(value: Any, by_id: Mapping[int, Replaced]) -> Replaced | None:
    """The old parameter in a tuple that holds nothing else but texts and numbers."""
    if type(value) is not tuple:
        return None
    found = [by_id[id(entry)] for entry in value if id(entry) in by_id]
    simple = all(isinstance(entry, SIMPLE) or id(entry) in by_id for entry in value)
    return found[0] if simple and len(found) == 1 else None


def _tuples(value: tuple, replaced: Replaced) -> Iterator[tuple[tuple, nn.Parameter]]:
    for place, parameter in enumerate(replaced.same.values()):
        yield tuple(_entry(entry, replaced, place, parameter) for entry in value), parameter


def _entry(entry: Any, replaced: Replaced, place: int, parameter: nn.Parameter) -> Any:
    if entry is replaced.placeholder:
        return parameter
    names = replaced.renamed(entry) if isinstance(entry, str) else None
    return entry if names is None else names[place]

"""Which weights of a model other code reads than the layer that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# Of a tensor, not what it holds.
ABOUT = {
    "dim",
    "element_size",
    "is_contiguous",
    "is_floating_point",
    "ndimension",
    "nelement",
    "numel",
    "size",
    "stride",
}
CONTENTS = {"T", "H", "mT", "mH", "data", "real"}  # properties that hand out the values


class _Watch(TorchFunctionMode):
    def __init__(self, watched: Mapping[int, str]):
        super().__init__()
        self.watched = watched
        self.calls = 0  # of dense layers, that are running
        self.read: set[str] = set()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self.calls == 0 and _reads(func):
            for tensor in _tensors((args, tuple(kwargs.values()))):
                if id(tensor) in self.watched:
                    self.read.add(self.watched[id(tensor)])
        return func(*args, **kwargs)


def _reads(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return getattr(func.__self__, "__name__", "") in CONTENTS
    return name not in ABOUT


def _tensors(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list) and depth > 0:
        for entry in value:
            yield from _tensors(entry, depth - 1)


def owners(layers: Mapping[str, nn.Module]) -> dict[int, str]:
    """Id of a weight or bias -> the name of its layer."""
    return {id(p): name for name, layer in layers.items() for p in layer._parameters.values() if p is not None}


@contextmanager
def weight_reads(layers: Mapping[str, nn.Module], watched: Mapping[int, str]) -> Iterator[set[str]]:
    """The names, filled in while the model runs, of the layers whose weight or bias is read outside of the call of any.

    Args:
        layers: all dense layers.
        watched: from owners().
    """
    watch = _Watch(watched)

    def enter(*_: Any) -> None:
        watch.calls += 1

    def leave(*_: Any) -> None:
        watch.calls -= 1

    hooks = []
    try:
        for layer in layers.values():
            hooks += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
        with watch:
            yield watch.read
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def copied_weights(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Other parameters of the same values in the layers: who reads the old ones then has them from somewhere else."""
    before = {name: dict(layer._parameters) for name, layer in layers.items()}
    try:
        for layer in layers.values():
            for kind, parameter in layer._parameters.items():
                if parameter is not None:
                    layer._parameters[kind] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        yield
    finally:
        for name, layer in layers.items():
            layer._parameters.update(before[name])

"""How a model of unknown making is called on a batch of unknown shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Forward = Callable[[nn.Module, Any], Any]
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def call_model(model: nn.Module, batch: Any) -> Any:
    """A tensor is the argument, a tuple or list are the arguments, a dict is the only argument or the keywords.

    What is one entry longer than the model's arguments ends with the labels, which are left out: (inputs, labels).
    Tensors are moved to the model's device.
    """
    batch = _moved(batch, _device(model))
    if isinstance(batch, Mapping):
        return model(batch) if _takes_one_argument(model, batch) else model(**batch)
    if not isinstance(batch, tuple | list):
        return model(batch)
    return model(*(batch[:-1] if len(batch) == _most_arguments(model) + 1 else batch))


def rows_of(batch: Any) -> int:
    """The length of the first tensor in the batch; 1 where there is none."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.dim() else 1
    entries = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((rows_of(entry) for entry in entries if isinstance(entry, torch.Tensor | Mapping | tuple | list)), 1)


def _parameters_of(model: nn.Module) -> list[inspect.Parameter]:
    return list(inspect.signature(model.forward).parameters.values())


def _takes_one_argument(model: nn.Module, batch: Mapping[str, Any]) -> bool:
    positional = [p for p in _parameters_of(model) if p.kind in POSITIONAL]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    only = required if required else positional
    return len(only) == 1 and only[0].name not in batch


def _most_arguments(model: nn.Module) -> float:
    parameters = _parameters_of(model)
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return float("inf")
    return sum(p.kind in POSITIONAL for p in parameters)


def _device(model: nn.Module) -> torch.device | None:
    """Of all parameters; None where they are on several, or there are none."""
    devices = {parameter.device for parameter in model.parameters()}
    return devices.pop() if len(devices) == 1 else None


def _moved(batch: Any, device: torch.device | None) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch if device is None or batch.device == device else batch.to(device)
    if type(batch) is dict:
        return {key: _moved(value, device) for key, value in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(_moved(value, device) for value in batch)
    return batch

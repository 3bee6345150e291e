"""Optimizers across the swap of parameters: those that a model holds are rebuilt, old ones are caught at their step."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

if TYPE_CHECKING:
    from afm.foreign_held import Replaced

Optimizer = torch.optim.Optimizer


def rebuild(optimizer: Optimizer, replaced: Mapping[int, Replaced]) -> bool:
    """Puts new parameters in the place of old ones in every group; `replaced` is by the id of what is held of them.

    Hyperparameters stay, and so does the state of the other parameters; that of the new ones starts anew. Returns
    whether there was an old one.
    """
    seen = {id(p) for group in optimizer.param_groups for p in group["params"]} - replaced.keys()
    new: list[torch.nn.Parameter] = []
    for group in optimizer.param_groups:
        names = group.get("param_names", [""] * len(group["params"]))
        entries = list(zip(names, group["params"], strict=True))
        if all(id(parameter) not in replaced for _, parameter in entries):
            continue
        kept: list[tuple[str, torch.nn.Parameter]] = []
        for name, parameter in entries:
            if id(parameter) not in replaced:
                kept.append((name, parameter))
                continue
            optimizer.state.pop(parameter, None)
            trained = replaced[id(parameter)].trained.items()
            added = [(n, p) for n, p in trained if p.requires_grad and id(p) not in seen]
            seen.update(id(p) for _, p in added)
            kept += added
            new += [p for _, p in added]
        group["params"] = [parameter for _, parameter in kept]
        if "param_names" in group:
            group["param_names"] = [name for name, _ in kept]
    if new:
        _give_initial_state(optimizer, new)
    return bool(new)


def _give_initial_state(optimizer: Optimizer, new: Iterable[torch.nn.Parameter]) -> None:
    """Some classes make the state of their parameters in the constructor: it comes from another one of the class."""
    known = inspect.signature(type(optimizer)).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups if group["params"]]
    try:
        fresh = type(optimizer)(groups, **options)
    except Exception:  # a class whose constructor takes something else; it makes its state at the first step
        return
    for parameter in new:
        if parameter in fresh.state:
            optimizer.state[parameter] = fresh.state[parameter]


# Note [Old optimizers]: an optimizer over the dense layers goes through its steps without an error after the model was
# compressed, and trains nothing. A hook on all optimizers' steps sees it: none of its parameters has a gradient, and
# one of them is of a layer that a factor pair replaced.
_replaced: dict[int, weakref.ref] = {}  # parameters of original models, by id
_hook: Any = None


def watch_for_old_optimizers(parameters: Iterable[torch.nn.Parameter]) -> None:
    """From now on a step of an optimizer over these, none of which has a gradient, raises ValueError."""
    global _hook
    for parameter in parameters:
        key = id(parameter)
        _replaced[key] = weakref.ref(parameter, lambda _, key=key: _replaced.pop(key, None))
    if _replaced and _hook is None:
        _hook = register_optimizer_step_pre_hook(_refuse_old)


def _refuse_old(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    if not _replaced or len(args) > 1 or kwargs.get("closure") is not None:  # a closure makes the gradients
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(parameter.grad is not None for parameter in parameters):
        return
    if any(_is_replaced(parameter) for parameter in parameters):
        raise ValueError(
            "this optimizer was made before the model was compressed: it holds the old layers, none of which has a "
            "gradient, and trains nothing. Make a new one from the compressed model, from its parameters() or "
            "afm.parameter_groups(model)"
        )


def _is_replaced(parameter: torch.nn.Parameter) -> bool:
    reference = _replaced.get(id(parameter))
    return reference is not None and reference() is parameter

"""Which layers of any PyTorch model can become factor pairs, under which names, and why the others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from afm.factorized import FactorizedEmbedding, FactorizedLinear


@dataclass
class ModelLayers:
    """The dense layers of a model by the first of their names, and the reasons for leaving others alone."""

    dense: dict[str, nn.Linear | nn.Embedding]
    left_alone: dict[str, str]
    aliases: dict[str, str]  # every name -> the first name of that module

    def leave(self, name: str, reason: str) -> None:
        self.dense.pop(name, None)
        self.left_alone[name] = reason


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's model inside of DataParallel wrappers."""
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    return model


def layers_of(model: nn.Module) -> ModelLayers:
    """Raises ValueError for a model with lazy parameters."""
    lazy = [name for name, parameter in model.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise ValueError(f"the parameters {', '.join(lazy)} have no values yet; run the model once before compress")
    first_names: dict[int, str] = {}
    found = ModelLayers({}, {}, {})
    holders = _holders(model)
    outside = _held_outside(model)
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in first_names:
            found.aliases[name] = first_names[id(module)]
            continue
        found.aliases[name] = first_names[id(module)] = name
        if not isinstance(module, nn.Linear | nn.Embedding | nn.EmbeddingBag | nn.Bilinear):
            continue
        reason = _reason(module) or _tied(module, holders) or outside.get(id(module))
        if reason:
            found.left_alone[name] = reason
        else:
            found.dense[name] = module
    return found


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts new modules in the place of old ones, under all of their names. Returns the model, or its replacement."""
    by_id = {id(old): new for old, new in replacements.items()}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in by_id:
                parent._modules[name] = by_id[id(child)]
    return by_id.get(id(model), model)


def _reason(module: nn.Module) -> str | None:
    """Why the layer by itself cannot become a factor pair."""
    kind = type(module).__name__
    if isinstance(module, nn.EmbeddingBag | nn.Bilinear):
        return f"nn.{kind} is not supported"
    base = nn.Linear if isinstance(module, nn.Linear) else nn.Embedding
    if type(module).forward is not base.forward:
        return f"{kind} has a forward of its own"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed from other parameters"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return "it has hooks, which would be lost"
    if not module.weight.is_floating_point():
        return f"its weight is {module.weight.dtype}"
    if not bool(module.weight.isfinite().all()):
        return "its weight is not finite"
    return _embedding_reason(module) if isinstance(module, nn.Embedding) else None


def _embedding_reason(module: nn.Embedding) -> str | None:
    if module.max_norm is not None:
        return "max_norm rescales its rows in every forward"
    if module.sparse:
        return "sparse=True: the basis of a factor pair has no sparse gradient"
    return None


def _storage(parameter: torch.Tensor) -> int:
    """The same for two parameters that share memory."""
    return parameter.untyped_storage().data_ptr() or id(parameter)


def _holders(model: nn.Module) -> dict[int, list[str]]:
    """Storage -> the modules (first names) that hold it."""
    holders: dict[int, list[str]] = defaultdict(list)
    for name, module in model.named_modules():
        for storage in {_storage(parameter) for parameter in module._parameters.values() if parameter is not None}:
            holders[storage].append(name or "the model itself")
    return holders


def _tied(module: nn.Module, holders: Mapping[int, list[str]]) -> str | None:
    for kind, parameter in module._parameters.items():
        if parameter is not None and len(holders[_storage(parameter)]) > 1:
            return f"its {kind} is shared by {', '.join(holders[_storage(parameter)])}"
    return None


def _held_outside(model: nn.Module) -> dict[int, str]:
    """Modules that an attribute holds past the module tree, where the old one would stay in use."""
    held: dict[int, str] = {}
    for name, owner in model.named_modules():
        for attribute, value in vars(owner).items():
            if attribute.startswith("_") and attribute in vars(nn.Module()):
                continue
            for module in _modules_in(value):
                held[id(module)] = f"{name + '.' if name else ''}{attribute} holds it past the module tree"
    return held


def _modules_in(value: object) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _modules_in(entry)
    elif isinstance(value, list | tuple | set):
        for entry in value:
            yield from _modules_in(entry)


def empty_pair(dense: nn.Module, rank: int, bias: bool = True) -> FactorizedLinear | FactorizedEmbedding:
    """A factor pair without values that fits in the place of `dense`; `bias` is that of an embedding's basis."""
    if isinstance(dense, nn.Embedding):
        pair = FactorizedEmbedding.empty(dense, rank, bias)
        if bias and dense.padding_idx is not None:
            pair.basis.bias.requires_grad_(False)
    else:
        pair = FactorizedLinear.empty(dense.in_features, dense.out_features, rank, dense.weight)
    if not dense.weight.requires_grad:
        pair.requires_grad_(False)
    return pair.train(dense.training)

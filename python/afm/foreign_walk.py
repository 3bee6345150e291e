"""Which layers of any PyTorch model can become factor pairs, under which names, and why the others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from afm.modules import Part

DENSE = (nn.Linear, nn.Conv1d, nn.Embedding, nn.EmbeddingBag)  # what a factor pair can stand for
HELD = "other code holds its weight past the layer, and reads it in the forward"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass
class ModelLayers:
    """The dense layers of a model by the first of their names, and the reasons for leaving other parts alone."""

    dense: dict[str, nn.Module]
    left_alone: dict[str, str]  # layers, and parameters of several dimensions that are in no layer
    aliases: dict[str, str]  # every name -> the first name of that module

    def leave(self, name: str, reason: str) -> None:
        self.dense.pop(name, None)
        self.left_alone[name] = reason


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's model inside of DataParallel and torch.compile wrappers."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, got {type(model).__name__}")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model._modules.get("_orig_mod"), nn.Module):
            model = model._orig_mod
        else:
            return model


def layers_of(model: nn.Module) -> ModelLayers:
    """Raises ValueError for a model with lazy parameters, TypeError for one of libafm's own."""
    if isinstance(model, Part):
        raise TypeError("afm.compress takes other people's models; for ours: collect_statistics, plan_ranks, factorize")
    lazy = [name for name, parameter in model.named_parameters() if nn.parameter.is_lazy(parameter)]
    if lazy:
        raise ValueError(f"the parameters {', '.join(lazy)} have no values yet; run the model once before compress")
    first_names: dict[int, str] = {}
    found = ModelLayers({}, {}, {})
    holders = _holders(model)
    for name, module in model.named_modules(remove_duplicate=False):
        if id(module) in first_names:
            found.aliases[name] = first_names[id(module)]
            continue
        found.aliases[name] = first_names[id(module)] = name
        if not isinstance(module, (*DENSE, nn.Bilinear)):
            continue
        reason = _reason(module) or _tied(module, holders)
        if reason:
            found.left_alone[name] = reason
        else:
            found.dense[name] = module
    found.left_alone.update(_bare_parameters(model, found))
    return found


def parameters_under(model: nn.Module, names: Mapping[str, str]) -> dict[str, int]:
    """How many parameters each of these layers and parameters has; what two of them share counts in the first."""
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    counted: set[int] = set()
    sizes = {}
    for name in names:
        own = list(modules[name].parameters()) if name in modules else [parameters[name]]
        sizes[name] = sum(p.numel() for p in own if id(p) not in counted)
        counted.update(id(p) for p in own)
    return sizes


def _base(module: nn.Module) -> type[nn.Module]:
    return next(kind for kind in DENSE if isinstance(module, kind))


def _reason(module: nn.Module) -> str | None:
    """Why the layer by itself cannot become a factor pair."""
    kind = type(module).__name__
    if isinstance(module, nn.Bilinear):
        return "nn.Bilinear is not supported"
    if type(module).forward is not _base(module).forward or "forward" in vars(module):
        return f"{kind} has a forward of its own"
    if module._modules or module._buffers or not module._parameters.keys() <= {"weight", "bias"}:
        if not isinstance(module._parameters.get("weight"), nn.Parameter):
            return "its weight is computed from other parameters"
        return f"{kind} has more tensors than weight and bias"
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return "its weight is computed from other parameters"
    if any(getattr(module, hooks) for hooks in HOOKS):
        return "it has hooks, which would be lost"
    if not module.weight.is_floating_point():
        return f"its weight is {module.weight.dtype}"
    if not bool(module.weight.isfinite().all()):
        return "its weight is not finite"
    return _reason_of_kind(module)


def _reason_of_kind(module: nn.Module) -> str | None:
    if isinstance(module, nn.Linear):
        return None
    if isinstance(module, nn.Conv1d):
        plain = (module.kernel_size, module.stride, module.padding, module.groups) == ((1,), (1,), (0,), 1)
        return None if plain else "it is no convolution of width 1 with stride 1, in one group, without padding"
    if module.max_norm is not None:
        return "max_norm rescales its rows in every forward"
    if module.sparse:
        return "sparse=True: the basis of a factor pair has no sparse gradient"
    if isinstance(module, nn.EmbeddingBag) and module.mode == "max":
        return "mode='max' is not linear in its rows"
    return None


def _storage(parameter: nn.Parameter) -> int:
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


def _bare_parameters(model: nn.Module, found: ModelLayers) -> dict[str, str]:
    """Kernels that are in no layer, such as those of cross networks and attention."""
    layers = [*found.dense, *found.left_alone]
    in_layers = {id(p) for name, module in model.named_modules() if name in layers for p in module.parameters()}
    bare = {}
    for owner, module in model.named_modules():
        for kind, parameter in module._parameters.items():
            if parameter is None or id(parameter) in in_layers or sum(size > 1 for size in parameter.shape) < 2:
                continue
            in_layers.add(id(parameter))
            name = f"{owner}.{kind}" if owner else kind
            bare[name] = f"a parameter of {type(module).__name__}, which is no layer that a factor pair can replace"
    return bare


def same_names(layers: ModelLayers, root: str) -> list[str]:
    """The first names of the modules that `root` names, or that lie below it."""
    return [first for alias, first in layers.aliases.items() if alias == root or alias.startswith(root + ".")]

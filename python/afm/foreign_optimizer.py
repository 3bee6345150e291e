"""Training on after compression: parameter groups, and the check that an optimizer trains the new parameters."""

from __future__ import annotations

import torch
from torch import nn

from afm.factorized import factorized_layers

# Of the learning rate. DeepFM on Frappe, at a ratio of 8 and a constant rate: after three epochs the factors' 0.3 has a
# validation AUC of 0.975, 1 of 0.967 and 3 of 0.874; with a rate that falls, 0.3 and 1 are equal.
SCALES = {"factors": 0.3, "tables": 1.0, "rest": 1.0}


def check_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError unless the optimizer holds every trainable parameter of the model.

    One that was made before compress() holds the old layers, and would silently train nothing of the new ones.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    missing = [name for name, parameter in trainable if id(parameter) not in held]
    if missing:
        raise ValueError(
            f"the optimizer must hold all {len(trainable)} trainable parameters of the compressed model, "
            f"{len(missing)} are missing: {', '.join(missing)}. Make a new one after afm.compress, from "
            "model.parameters() or afm.parameter_groups(model)"
        )


def parameter_groups(model: nn.Module, lr: float | None = None) -> list[dict]:
    """Parameter groups for any optimizer of torch: "factors", "tables" (of embeddings) and "rest", each with its name.

    Args:
        model: from compress().
        lr: learning rate the model was trained with, > 0. The factors then get 0.3 of it: they are the best of their
            rank already, and each of them moves many outputs at once. None leaves the rates to the optimizer.

    Example:
        optimizer = torch.optim.Adam(afm.parameter_groups(small, lr=1e-3))
    """
    if lr is not None and not lr > 0:
        raise ValueError(f"parameter_groups lr must be > 0, got {lr}")
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    factors = {id(p) for pair in factorized_layers(model).values() for p in pair.parameters()} - tables
    groups: dict[str, list[nn.Parameter]] = {"factors": [], "tables": [], "rest": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            group = "factors" if id(parameter) in factors else "tables" if id(parameter) in tables else "rest"
            groups[group].append(parameter)
    rates = {} if lr is None else {name: {"lr": lr * SCALES[name]} for name in groups}
    return [{"name": name, "params": held, **rates.get(name, {})} for name, held in groups.items() if held]

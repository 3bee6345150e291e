"""Training on after compression: parameter groups, and the check that an optimizer trains the new parameters."""

from __future__ import annotations

import torch
from torch import nn

from afm.factorized import factorized_layers


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


def parameter_groups(model: nn.Module) -> list[dict]:
    """Parameter groups for an optimizer: "factors", "tables" (of embeddings) and "rest", each with its name.

    Example:
        optimizer = torch.optim.Adam(afm.parameter_groups(small), lr=1e-3)
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    factors = {id(p) for pair in factorized_layers(model).values() for p in pair.parameters()} - tables
    groups: dict[str, list[nn.Parameter]] = {"factors": [], "tables": [], "rest": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            group = "factors" if id(parameter) in factors else "tables" if id(parameter) in tables else "rest"
            groups[group].append(parameter)
    return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]

"""Plain float64 PyTorch versions of DeepFM, Wide & Deep and DCN, written from their definitions, not from libafm.

They are slow on purpose: every sum over fields, slots, pairs and layers is spelled out. Weights are a dictionary under
libafm's parameter names. Sizes: B rows, S id slots, F fields, D embedding width, Q dense features, k rank.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

Weights = dict[str, Tensor]


@dataclass
class Shape:
    """What a model is built from, apart from its weights."""

    cardinalities: list[int]
    slots: list[int]
    embedding_dim: int
    wide: bool
    hidden_layers: int
    batch_norm: bool = True
    ranks: list[int] = field(default_factory=list)  # of the fields; empty: dense
    shared_basis: bool = False
    relu: set[str] = field(default_factory=set)  # linear layers with a ReLU between their factors


def linear(weights: Weights, path: str, x: Tensor, relu: bool = False) -> Tensor:
    """Dense where `path` has a weight, a pair of factors where it has `down` and `up`."""
    if f"{path}.weight" in weights:
        y = x @ weights[f"{path}.weight"].T
        return y + weights[f"{path}.bias"] if f"{path}.bias" in weights else y
    latent = x @ weights[f"{path}.down"].T + weights[f"{path}.down_bias"]
    latent = torch.relu(latent) if relu else latent
    return latent @ weights[f"{path}.up"].T + weights[f"{path}.up_bias"]


def tables(weights: Weights, shape: Shape) -> list[tuple[Tensor, Tensor | None]]:
    """Per field: its rows [N_j, D] and its wide weights [N_j]."""
    result = []
    start = 0
    for j, cardinality in enumerate(shape.cardinalities):
        width = (shape.ranks[j] if shape.ranks else shape.embedding_dim) + int(shape.wide)
        if shape.ranks:
            stored = weights["embedding.latent"][start : start + cardinality * width].reshape(cardinality, width)
            start += cardinality * width
        else:
            stored = weights["embedding.weight"][start : start + cardinality]
            start += cardinality
        rows = stored[:, : width - 1] if shape.wide else stored
        if shape.ranks:
            first = 0 if shape.shared_basis else sum(shape.ranks[:j])
            basis = weights["embedding.basis"][first : first + shape.ranks[j]]
            rows = rows @ basis + weights["embedding.offset"][j]
        result.append((rows, stored[:, width - 1] if shape.wide else None))
    return result


def embed(weights: Weights, shape: Shape, ids: Tensor) -> tuple[Tensor, Tensor]:
    """ids [B, S] -> values [B, F, D], first-order term [B]. Empty slots hold -1; a field is the mean of its others."""
    values, first_order = [], torch.zeros(len(ids), dtype=torch.float64)
    slot = 0
    for (rows, wide), count in zip(tables(weights, shape), shape.slots, strict=True):
        own = ids[:, slot : slot + count]
        slot += count
        means = []
        wides = []
        for row in own:
            filled = row[row >= 0].long()
            empty = len(filled) == 0
            means.append(torch.zeros(shape.embedding_dim, dtype=torch.float64) if empty else rows[filled].mean(0))
            if wide is not None:
                wides.append(torch.zeros((), dtype=torch.float64) if empty else wide[filled].mean())
        values.append(torch.stack(means))
        if wide is not None:
            first_order = first_order + torch.stack(wides)
    return torch.stack(values, 1), first_order


def batch_norm(weights: Weights, path: str, x: Tensor, training: bool, seen: Weights) -> Tensor:
    """In training, `seen` receives the running statistics after the step (momentum 0.1, unbiased variance)."""
    mean, variance = weights[f"{path}.running_mean"], weights[f"{path}.running_var"]
    if training:
        batch_mean = x.mean(0)
        batch_variance = ((x - batch_mean) ** 2).mean(0)
        unbiased = batch_variance * len(x) / (len(x) - 1)
        seen[f"{path}.running_mean"] = (0.9 * mean + 0.1 * batch_mean).detach()
        seen[f"{path}.running_var"] = (0.9 * variance + 0.1 * unbiased).detach()
        mean, variance = batch_mean, batch_variance
    normal = (x - mean) / torch.sqrt(variance + 1e-5)
    return normal * weights[f"{path}.weight"] + weights[f"{path}.bias"]


def mlp(weights: Weights, shape: Shape, x: Tensor, training: bool, seen: Weights) -> Tensor:
    for i in range(shape.hidden_layers):
        x = linear(weights, f"mlp.layers.{i}", x, relu=f"mlp.layers.{i}" in shape.relu)
        if shape.batch_norm:
            x = batch_norm(weights, f"mlp.norms.{i}", x, training, seen)
        x = torch.relu(x)
    return x


def logistic_regression(weights: Weights, first_order: Tensor, dense: Tensor) -> Tensor:
    logit = first_order + weights["bias"]
    if dense.shape[1] > 0:
        logit = logit + linear(weights, "wide_dense", dense)[:, 0]
    return logit


def pairwise_products(values: Tensor) -> Tensor:
    total = torch.zeros(len(values), dtype=torch.float64)
    for i in range(values.shape[1]):
        for j in range(i):
            total = total + (values[:, i] * values[:, j]).sum(1)
    return total


def features(values: Tensor, dense: Tensor) -> Tensor:
    return torch.cat([*values.unbind(1), dense], 1)


def wide_deep(weights: Weights, shape: Shape, ids: Tensor, dense: Tensor, training: bool, seen: Weights) -> Tensor:
    values, first_order = embed(weights, shape, ids)
    hidden = mlp(weights, shape, features(values, dense), training, seen)
    return logistic_regression(weights, first_order, dense) + linear(weights, "mlp.head", hidden)[:, 0]


def deepfm(weights: Weights, shape: Shape, ids: Tensor, dense: Tensor, training: bool, seen: Weights) -> Tensor:
    values, _ = embed(weights, shape, ids)
    return wide_deep(weights, shape, ids, dense, training, seen) + pairwise_products(values)


def cross_vector(weights: Weights, x0: Tensor) -> Tensor:
    x = x0
    for w, b in zip(weights["cross.weight"], weights["cross.bias"], strict=True):
        x = x0 * (x @ w)[:, None] + b + x
    return x


def cross_matrix(weights: Weights, shape: Shape, x0: Tensor) -> Tensor:
    x, layer = x0, 0
    while any(name.startswith(f"cross.layers.{layer}.") for name in weights):
        path = f"cross.layers.{layer}"
        x = x0 * linear(weights, path, x, relu=path in shape.relu) + x
        layer += 1
    return x


def dcn(weights: Weights, shape: Shape, ids: Tensor, dense: Tensor, training: bool, seen: Weights) -> Tensor:
    values, _ = embed(weights, shape, ids)
    x0 = features(values, dense)
    crossed = cross_vector(weights, x0) if "cross.weight" in weights else cross_matrix(weights, shape, x0)
    deep = mlp(weights, shape, x0, training, seen)
    return linear(weights, "head", torch.cat([crossed, deep], 1))[:, 0]


MODELS = {"deepfm": deepfm, "wide_deep": wide_deep, "dcn": dcn}

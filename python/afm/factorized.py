"""What a dense layer of a PyTorch model becomes: a pair of ordinary layers in one small module."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import skip_init

Layer = TypeVar("Layer", bound=nn.Module)


def _without_values(kind: type[Layer], *args: Any, **kwargs: Any) -> Layer:
    with warnings.catch_warnings():  # rank 0 is meant
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return skip_init(kind, *args, **kwargs)


class FactorizedLinear(nn.Sequential):
    """nn.Sequential(nn.Linear(n, k), nn.Linear(k, m)) in the place of an nn.Linear(n, m).

    Code that reads `weight`, `bias`, `in_features` or `out_features` of the layer gets those of the product: right for
    a regularizer or a functional call, but a copy, so that writing to it changes nothing.
    """

    __jit_unused_properties__ = ("bias", "in_features", "out_features", "rank", "weight")

    @classmethod
    def empty(cls, in_features: int, out_features: int, rank: int, like: torch.Tensor) -> FactorizedLinear:
        """Factors without values, of dtype and device of `like`."""
        where = {"dtype": like.dtype, "device": like.device}
        down = _without_values(nn.Linear, in_features, rank, **where)
        return cls(down, _without_values(nn.Linear, rank, out_features, **where))

    @property
    def in_features(self) -> int:
        return self[0].in_features

    @property
    def out_features(self) -> int:
        return self[1].out_features

    @property
    def rank(self) -> int:
        return self[0].out_features

    @property
    def weight(self) -> torch.Tensor:
        return self[1].weight @ self[0].weight

    @property
    def bias(self) -> torch.Tensor:
        return self[1].weight @ self[0].bias + self[1].bias


class FactorizedEmbedding(nn.Module):
    """nn.Embedding(N, k) and nn.Linear(k, D) in the place of an nn.Embedding(N, D).

    The row of padding_idx stays what it was, during training too: its latent row is zero and gets no gradient, and the
    bias is absent, or holds that row and is not trained. `weight` is the product, a copy.
    """

    __jit_unused_properties__ = ("embedding_dim", "num_embeddings", "padding_idx", "rank", "weight")

    def __init__(self, rows: nn.Embedding, basis: nn.Linear):
        super().__init__()
        self.rows = rows
        self.basis = basis

    @classmethod
    def empty(cls, dense: nn.Embedding, rank: int, bias: bool) -> FactorizedEmbedding:
        """Factors without values, of dtype, device and options of `dense`."""
        where = {"dtype": dense.weight.dtype, "device": dense.weight.device}
        rows = _without_values(
            nn.Embedding,
            dense.num_embeddings,
            rank,
            padding_idx=dense.padding_idx,
            scale_grad_by_freq=dense.scale_grad_by_freq,
            **where,
        )
        return cls(rows, _without_values(nn.Linear, rank, dense.embedding_dim, bias=bias, **where))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.basis(self.rows(input))

    @property
    def num_embeddings(self) -> int:
        return self.rows.num_embeddings

    @property
    def embedding_dim(self) -> int:
        return self.basis.out_features

    @property
    def padding_idx(self) -> int | None:
        return self.rows.padding_idx

    @property
    def rank(self) -> int:
        return self.rows.embedding_dim

    @property
    def weight(self) -> torch.Tensor:
        return self.basis(self.rows.weight)


Factorized = FactorizedLinear | FactorizedEmbedding


def factorized_layers(model: nn.Module) -> dict[str, Factorized]:
    """The factor pairs of a model, each under the first of its names."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Factorized)}

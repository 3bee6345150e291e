"""What a dense layer of a PyTorch model becomes: a pair of ordinary layers in one small module."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import skip_init

Layer = TypeVar("Layer", bound=nn.Module)


def without_values(kind: type[Layer], *args: Any, **kwargs: Any) -> Layer:
    """A layer whose parameters are to be filled."""
    with warnings.catch_warnings():  # rank 0 is meant
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return skip_init(kind, *args, **kwargs)


def like(dense: nn.Module) -> dict[str, Any]:
    """Dtype and device of a layer."""
    return {"dtype": dense.weight.dtype, "device": dense.weight.device}


class FactorPair(nn.Sequential):
    """Two layers, `self[0]` down to the rank and `self[-1]` up again, with nn.ReLU between them or nothing."""

    __jit_unused_properties__ = ("activation", "bias", "weight")

    @classmethod
    def of(cls, down: nn.Module, up: nn.Module, activation: str = "none") -> FactorPair:
        return cls(down, up) if activation == "none" else cls(down, nn.ReLU(), up)

    @property
    def activation(self) -> str:
        """ "none" or "relu"; a shift of the latents is in the biases."""
        return "none" if len(self) == 2 else "relu"

    @property
    def weight(self) -> torch.Tensor:
        """Of the product: a copy, so that writing to it changes nothing."""
        self._check_linear()
        return (self[-1].weight.flatten(1) @ self[0].weight.flatten(1)).reshape(-1, *self[0].weight.shape[1:])

    @property
    def bias(self) -> torch.Tensor:
        """Of the product, likewise."""
        self._check_linear()
        return self[-1].weight.flatten(1) @ self[0].bias + self[-1].bias

    def _check_linear(self) -> None:
        if len(self) > 2:  # hasattr is false
            raise AttributeError("a factor pair with an activation has no weight")


class FactorizedLinear(FactorPair):
    """nn.Sequential(nn.Linear(n, k), nn.Linear(k, m)) in the place of an nn.Linear(n, m), or with nn.ReLU() between.

    Code that reads `weight`, `bias`, `in_features` or `out_features` of the layer gets those of the product: right for
    a regularizer or a functional call, but a copy, so that writing to it changes nothing. With an activation there is
    neither `weight` nor `bias`.
    """

    __jit_unused_properties__ = (*FactorPair.__jit_unused_properties__, "in_features", "out_features", "rank")

    @classmethod
    def empty(cls, dense: nn.Linear, rank: int, activation: str = "none") -> FactorizedLinear:
        """Factors without values, of dtype and device of `dense`."""
        down = without_values(nn.Linear, dense.in_features, rank, **like(dense))
        return cls.of(down, without_values(nn.Linear, rank, dense.out_features, **like(dense)), activation)

    @property
    def in_features(self) -> int:
        return self[0].in_features

    @property
    def out_features(self) -> int:
        return self[-1].out_features

    @property
    def rank(self) -> int:
        return self[0].out_features


class FactorizedConv1d(FactorPair):
    """nn.Sequential(nn.Conv1d(n, k, 1), nn.Conv1d(k, m, 1)) in the place of an nn.Conv1d(n, m, 1): a CIN's layer.

    Else as FactorizedLinear; `weight` is [m, n, 1]. A convolution has no rank 0.
    """

    __jit_unused_properties__ = (*FactorPair.__jit_unused_properties__, "in_channels", "out_channels", "rank")

    @classmethod
    def empty(cls, dense: nn.Conv1d, rank: int, activation: str = "none") -> FactorizedConv1d:
        """Factors without values, of dtype and device of `dense`."""
        down = without_values(nn.Conv1d, dense.in_channels, rank, 1, **like(dense))
        return cls.of(down, without_values(nn.Conv1d, rank, dense.out_channels, 1, **like(dense)), activation)

    @property
    def in_channels(self) -> int:
        return self[0].weight.shape[1]

    @property
    def out_channels(self) -> int:
        return self[-1].weight.shape[0]

    @property
    def rank(self) -> int:
        return self[0].weight.shape[0]


class FactorizedEmbedding(nn.Module):
    """nn.Embedding(N, k) and nn.Linear(k, D) in the place of an nn.Embedding(N, D).

    The row of padding_idx stays what it was, during training too: its latent row is zero and gets no gradient, and the
    bias is absent, or holds that row and is not trained. `weight` is the product, a copy.
    """

    __jit_unused_properties__ = ("embedding_dim", "num_embeddings", "offset_of_rows", "padding_idx", "rank", "weight")

    def __init__(self, rows: nn.Embedding, basis: nn.Linear):
        super().__init__()
        self.rows = rows
        self.basis = basis

    @classmethod
    def empty(cls, dense: nn.Embedding, rank: int, bias: bool) -> FactorizedEmbedding:
        """Factors without values, of dtype, device and options of `dense`."""
        return cls(_empty_rows(dense, rank), without_values(nn.Linear, rank, dense.embedding_dim, bias, **like(dense)))

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
    def offset_of_rows(self) -> nn.Parameter | None:
        """What is added to every row, [D]."""
        return self.basis.bias

    @property
    def weight(self) -> torch.Tensor:
        return self.basis(self.rows.weight)


class SharedBasisEmbedding(FactorizedEmbedding):
    """One of several tables of equal width that have one basis, nn.Linear(K, D), of which a table of rank k <= K takes
    the first k columns. The offset [D] is the table's own, or None."""

    def __init__(self, rows: nn.Embedding, basis: nn.Linear, offset: nn.Parameter | None):
        super().__init__(rows, basis)
        self.offset = offset

    @classmethod
    def with_basis(cls, dense: nn.Embedding, rank: int, basis: nn.Linear, bias: bool) -> SharedBasisEmbedding:
        """Rows and offset without values."""
        offset = nn.Parameter(torch.empty(dense.embedding_dim, **like(dense))) if bias else None
        return cls(_empty_rows(dense, rank), basis, offset)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._expanded(self.rows(input))

    def _expanded(self, latents: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(latents, self.basis.weight[:, : latents.shape[-1]], self.offset)

    @property
    def offset_of_rows(self) -> nn.Parameter | None:
        return self.offset

    @property
    def weight(self) -> torch.Tensor:
        return self._expanded(self.rows.weight)


class FactorizedEmbeddingBag(nn.Module):
    """nn.EmbeddingBag(N, k) and nn.Linear(k, D) without bias in the place of an nn.EmbeddingBag(N, D) of mode "sum" or
    "mean": an empty bag stays zero."""

    __jit_unused_properties__ = ("embedding_dim", "num_embeddings", "rank", "weight")

    def __init__(self, rows: nn.EmbeddingBag, basis: nn.Linear):
        super().__init__()
        self.rows = rows
        self.basis = basis

    @classmethod
    def empty(cls, dense: nn.EmbeddingBag, rank: int) -> FactorizedEmbeddingBag:
        """Factors without values, of dtype, device and options of `dense`."""
        rows = without_values(
            nn.EmbeddingBag,
            dense.num_embeddings,
            rank,
            mode=dense.mode,
            scale_grad_by_freq=dense.scale_grad_by_freq,
            include_last_offset=dense.include_last_offset,
            padding_idx=dense.padding_idx,
            **like(dense),
        )
        return cls(rows, without_values(nn.Linear, rank, dense.embedding_dim, bias=False, **like(dense)))

    def forward(
        self,
        input: torch.Tensor,
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.basis(self.rows(input, offsets, per_sample_weights))

    @property
    def num_embeddings(self) -> int:
        return self.rows.num_embeddings

    @property
    def embedding_dim(self) -> int:
        return self.basis.out_features

    @property
    def rank(self) -> int:
        return self.rows.embedding_dim

    @property
    def weight(self) -> torch.Tensor:
        return self.basis(self.rows.weight)


def _empty_rows(dense: nn.Embedding, rank: int) -> nn.Embedding:
    return without_values(
        nn.Embedding,
        dense.num_embeddings,
        rank,
        padding_idx=dense.padding_idx,
        scale_grad_by_freq=dense.scale_grad_by_freq,
        **like(dense),
    )


Factorized = FactorizedLinear | FactorizedConv1d | FactorizedEmbedding | FactorizedEmbeddingBag


def factorized_layers(model: nn.Module) -> dict[str, Factorized]:
    """The factor pairs of a model, each under the first of its names."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Factorized)}

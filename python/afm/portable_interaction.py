"""How the fields of a model file meet, as plain torch (libafm/nn/interaction.h, libafm/nn/latent_interaction.h)."""

from __future__ import annotations

from itertools import accumulate

import torch

from afm.portable_layers import Affine


def machine(values: torch.Tensor) -> torch.Tensor:
    """The factorization machine: [B, F, D] -> [B]."""
    return 0.5 * (values.sum(1).square().sum(1) - values.square().sum((1, 2)))


class LatentMachine(torch.nn.Module):
    """The factorization machine on latents [B, K] (libafm/nn/latent_interaction.h)."""

    def __init__(self, ranks: list[int], basis: torch.Tensor | None):
        super().__init__()
        self.fields, self.widest, latents = len(ranks), max(ranks), sum(ranks)
        first = [0, *accumulate(ranks)]
        index = [first[j] + c if c < rank else latents for j, rank in enumerate(ranks) for c in range(self.widest)]
        self.in_order = index == list(range(latents))
        self.decodes = basis is not None
        self.register_buffer("index", torch.tensor(index))
        if self.decodes:
            padded = torch.cat([basis, basis.new_zeros(1, basis.shape[1])])[self.index].view(
                self.fields, self.widest, -1
            )
            self.register_buffer("basis", basis)
            self.register_buffer("gram", padded @ padded.transpose(1, 2))  # [F, widest, widest]

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        padded = latents
        if not self.in_order:
            padded = torch.nn.functional.pad(latents, (0, 1)).index_select(1, self.index)
        z = padded.view(-1, self.fields, self.widest)
        if not self.decodes:
            return machine(z)
        by_field = z.transpose(0, 1)
        own = (torch.bmm(by_field, self.gram) * by_field).sum((0, 2))
        return 0.5 * ((latents @ self.basis).square().sum(1) - own)


class VectorCross(torch.nn.Module):
    """The cross network of vectors: x_l = a_l x_0 + B_l, so that all layers cost one product."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor):
        super().__init__()
        sums = bias.cumsum(0)
        self.register_buffer("weight", weight)
        self.register_buffer("last", sums[-1])
        self.constants: list[float] = ((sums - bias) * weight).sum(1).tolist()

    def forward(self, x0: torch.Tensor) -> torch.Tensor:
        dots = x0 @ self.weight.t()
        a = torch.ones_like(dots[:, :1])
        for i, constant in enumerate(self.constants):
            a = a + a * dots[:, i : i + 1] + constant
        return self.last + x0 * a


class MatrixCross(torch.nn.Module):
    """The cross network of matrices (DCN-V2): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l."""

    def __init__(self, layers: list[Affine]):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x0: torch.Tensor) -> torch.Tensor:
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class LatentCross(torch.nn.Module):
    """The cross network and its part of the head on latents: [B, n] -> [B] (libafm/nn/latent_interaction.h)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, shift: torch.Tensor):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.shift: list[float] = shift.tolist()

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        p = torch.nn.functional.linear(u, self.weight, self.bias)
        a = torch.ones_like(p[:, 0])
        for i, shift in enumerate(self.shift[:-1]):
            a = a + a * p[:, i] + shift
        return a * p[:, len(self.shift) - 1] + self.shift[-1]

"""Linear layers of a model file as plain torch."""

from __future__ import annotations

import json
from os import PathLike

import torch

from afm import _core
from afm.plan import LayerPlan, RankPlan
from afm.portable_table import decode_codes

BATCH_NORM_EPSILON = 1e-5


class StoredModel:
    """The tensors of a model file by path, integers as codes and scales."""

    def __init__(self, path: str | PathLike[str]):
        file = _core.SafetensorsFile.open(path)
        file.verify()
        if file.metadata.get("kind") != "afm-model":
            raise _core.FormatError(f"'{path}' is no model file")
        self.kind = file.metadata["model"]
        self.options = json.loads(file.metadata["options"])
        self.schema = _core.schema_from_json(file.metadata["schema"])
        self.plan = RankPlan.from_json(file.metadata["ranks"])
        self._file, self._names = file, set(file.names())

    def __getitem__(self, name: str) -> torch.Tensor:
        """In float32, whatever the precision of the file; codes of integers as they are."""
        tensor = self._file.tensor(name)
        return tensor.float() if tensor.is_floating_point() else tensor

    def get(self, name: str) -> torch.Tensor | None:
        return self[name] if name in self._names else None

    def layer(self, path: str) -> LayerPlan:
        return self.plan.get(path, LayerPlan())


class Matrix(torch.nn.Module):
    """y = x W' + b, W [m, n] of floats or of int8 codes with scales, whose rows `gain` multiplies."""

    def __init__(
        self, stored: StoredModel, name: str, plan: LayerPlan, shape: tuple[int, int], bias, gain, integers: bool
    ):
        super().__init__()
        self.integers = plan.bits != "float" and integers
        self.register_buffer("bias", bias)
        if plan.bits == "float":
            self.register_buffer("weight", stored[name] if gain is None else stored[name] * gain[:, None])
            return
        codes = decode_codes(stored[f"{name}.codes"], shape[0] * shape[1]).view(shape)
        scale = stored[f"{name}.scale"].float()
        scale = scale[:, None] if plan.scale == "row" else scale[None, :]
        scale = scale if gain is None else scale * gain[:, None]
        self.register_buffer("weight", codes if self.integers else codes * scale)
        if self.integers:
            self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.to(self.scale.dtype) * self.scale if self.integers else self.weight
        return torch.nn.functional.linear(x, weight, self.bias)


class Affine(torch.nn.Module):
    """A linear layer, dense or a pair of factors, with the batch norm behind it in its last weights."""

    def __init__(self, stored: StoredModel, path: str, shape: tuple[int, int], norm: str = "", integers: bool = True):
        super().__init__()
        plan, (m, n) = stored.layer(path), shape
        self.relu = plan.activation != "none"
        self.rank = plan.ranks[0] if plan.ranks else -1
        name = "up_bias" if plan.ranks else "bias"
        bias = stored.get(f"{path}.{name}")
        gain = None
        if norm:
            gain = stored[f"{norm}.weight"] * (stored[f"{norm}.running_var"] + BATCH_NORM_EPSILON).rsqrt()
            shift = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * gain
            bias = shift if bias is None else bias * gain + shift
        if self.rank < 0:
            self.whole = Matrix(stored, f"{path}.weight", plan, (m, n), bias, gain, integers)
        elif self.rank == 0:
            self.register_buffer("constant", bias)
        else:
            inner = stored[f"{path}.down_bias"]
            self.down = Matrix(stored, f"{path}.down", plan, (self.rank, n), inner, None, integers)
            self.up = Matrix(stored, f"{path}.up", plan, (m, self.rank), bias, gain, integers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rank < 0:
            return self.whole(x)
        if self.rank == 0:
            return self.constant.unsqueeze(0).expand(x.shape[0], -1)
        latent = self.down(x)
        return self.up(latent.relu() if self.relu else latent)

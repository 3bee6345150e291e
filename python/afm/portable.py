"""A model file as a plain torch.nn.Module, without libafm's C++: what torch's exporters, torch.compile and other
frameworks understand. It computes in evaluation mode and is not trained; batch norm is part of the weights before it.

    plain = afm.portable("small.safetensors")
    logits = plain(ids, dense)
"""

from __future__ import annotations

import tempfile
from os import PathLike
from pathlib import Path

import torch

from afm.models import Model, save_model
from afm.portable_features import Features
from afm.portable_interaction import LatentCross, LatentMachine, MatrixCross, VectorCross, machine
from afm.portable_layers import Affine, StoredModel


class Portable(torch.nn.Module):
    """ids [B, S] (int32 or int64) and, with dense features, dense [B, Q] -> logits [B].

    Ids are not checked: they must be in range, an empty slot of a multi-valued field being -1.
    """

    def __init__(self, stored: StoredModel, integer_layers: bool):
        super().__init__()
        self.kind, self.dense = stored.kind, sum(field.kind == "numeric" for field in stored.schema.fields)
        self.slots = sum(stored.schema.slots)
        self.features = Features(stored, wide=self.kind != "dcn")
        dim, folded = stored.options["embedding_dim"], self.features.folded
        width = self.dense + (sum(self.features.ranks) if folded else len(self.features.ranks) * dim)
        self.mlp = self._mlp(stored, width, integer_layers)
        self.folded = folded
        self._add_first_order(stored)
        if self.kind == "deepfm" and folded:
            self.interaction = LatentMachine(self.features.ranks, stored.get("interaction.basis"))
        if self.kind == "dcn":
            self._add_cross(stored, width, integer_layers)
        self.eval()

    def _mlp(self, stored: StoredModel, width: int, integers: bool) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for i, hidden in enumerate(stored.options["hidden"]):
            norm = f"mlp.norms.{i}" if stored.options["batch_norm"] else ""
            layers += [Affine(stored, f"mlp.layers.{i}", (hidden, width), norm, integers), torch.nn.ReLU()]
            width = hidden
        if self.kind != "dcn":
            layers.append(Affine(stored, "mlp.head", (1, width), "", integers))
        self.deep_width = width
        return torch.nn.Sequential(*layers)

    def _add_first_order(self, stored: StoredModel) -> None:
        if self.kind != "dcn":
            self.bias: float = stored["bias"].item()
        self.register_buffer("wide_latent", stored.get("wide_latent"))
        if self.kind != "dcn" and self.dense:
            self.wide_dense = Affine(stored, "wide_dense", (1, self.dense))

    def _add_cross(self, stored: StoredModel, width: int, integers: bool) -> None:
        layers = stored.options["cross_layers"]
        self.has_mlp = bool(stored.options["hidden"])
        if self.folded:
            self.cross = LatentCross(*(stored[f"cross.{name}"] for name in ("weight", "bias", "shift")))
        elif stored.options["cross"] == "vector":
            self.cross = VectorCross(stored["cross.weight"], stored["cross.bias"])
        else:
            each = [Affine(stored, f"cross.layers.{i}", (width, width), "", integers) for i in range(layers)]
            self.cross = MatrixCross(each)
        head = (0 if self.folded else width) + (self.deep_width if self.has_mlp else 0)
        if head:
            self.head = Affine(stored, "head", (1, head), "", integers)

    def forward(self, ids: torch.Tensor, dense: torch.Tensor | None = None) -> torch.Tensor:
        read, wide = self.features(ids)
        x = read.flatten(1)
        if self.dense:
            x = torch.cat([x, dense], 1)
        if self.kind == "dcn":
            return self.crossed(x)
        logit = self.mlp(x).squeeze(1) + self.bias
        if wide is not None:
            logit = logit + wide
        if self.dense:
            logit = logit + self.wide_dense(dense).squeeze(1)
        if self.wide_latent is not None:
            logit = logit + read @ self.wide_latent
        if self.kind == "deepfm":
            logit = logit + (self.interaction(read) if self.folded else machine(read))
        return logit

    def crossed(self, x: torch.Tensor) -> torch.Tensor:
        crossed = self.cross(x)
        if self.folded:
            return crossed + self.head(self.mlp(x)).squeeze(1) if self.has_mlp else crossed
        return self.head(torch.cat([crossed, self.mlp(x)], 1) if self.has_mlp else crossed).squeeze(1)

    def example(self, rows: int = 3) -> tuple[torch.Tensor, ...]:
        """Inputs that it takes: ids int32 [rows, S], and dense float32 [rows, Q] where it has dense features."""
        ids = torch.zeros(rows, self.slots, dtype=torch.int32)
        return (ids, torch.zeros(rows, self.dense)) if self.dense else (ids,)


def portable(model: Model | str | PathLike[str], *, integer_layers: bool = False) -> Portable:
    """A model, or a model file, as a plain torch.nn.Module on the CPU, in float32 and evaluation mode.

    Args:
        model: of models/, dense, factorized or folded.
        integer_layers: keep the weights of integer linear layers as int8, widened when they are used: less memory, more
            work per call. Integer tables always stay int8.
    """
    if not isinstance(model, Model):
        return Portable(StoredModel(model), integer_layers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(model, path)
        return Portable(StoredModel(path), integer_layers)

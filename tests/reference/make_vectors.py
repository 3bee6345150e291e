"""Writes tests/golden/model_*.safetensors: weights, a batch, and what the plain models of models.py make of them.

    python tests/reference/make_vectors.py

A second run gives the same tensors; only the order of the metadata in the file is safetensors' own.
Metadata: model, options, schema, ranks, each as libafm writes them. Tensors, all float64 but the ids:
    weight.<name>                       every parameter and buffer under libafm's name
    ids [B, S] int32, dense [B, Q], label [B]
    eval.logits [B], eval.grad.<name>   batch norm with its running statistics; gradients of the mean logloss
    train.logits, train.grad.<name>     batch norm with the statistics of the batch; no dropout
    train.state.<name>                  running statistics after that step
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models import MODELS, Shape, Weights

GOLDEN = Path(__file__).parent.parent / "golden"
ROWS = 16
FIELDS = [
    {"name": "user", "cardinality": 7},
    {"name": "genres", "kind": "multi", "cardinality": 6, "max_values": 3},
    {"name": "age", "kind": "numeric"},
    {"name": "item", "cardinality": 5},
    {"name": "price", "kind": "numeric"},
]


@dataclass
class Case:
    name: str
    model: str
    options: dict = field(default_factory=dict)
    ranks: dict = field(default_factory=dict)  # the "layers" of a rank plan
    numeric: bool = True

    @property
    def fields(self) -> list[dict]:
        return [f for f in FIELDS if self.numeric or f.get("kind") != "numeric"]

    @property
    def id_fields(self) -> list[dict]:
        return [f for f in self.fields if f.get("kind") != "numeric"]

    @property
    def shape(self) -> Shape:
        embedding = self.ranks.get("embedding", {})
        return Shape(
            cardinalities=[f["cardinality"] for f in self.id_fields],
            slots=[f.get("max_values", 1) for f in self.id_fields],
            embedding_dim=self.options["embedding_dim"],
            wide=self.model != "dcn",
            hidden_layers=len(self.options["hidden"]),
            batch_norm=self.options.get("batch_norm", True),
            ranks=embedding.get("ranks", []),
            shared_basis=embedding.get("basis") == "shared",
            relu={path for path, plan in self.ranks.items() if plan.get("activation", "none") != "none"},
        )


SMALL = {"embedding_dim": 4, "hidden": [6, 5]}
CASES = [
    Case("deepfm", "deepfm", SMALL),
    Case("deepfm_plain", "deepfm", {"embedding_dim": 3, "hidden": [4], "batch_norm": False}, numeric=False),
    Case("wide_deep", "wide_deep", SMALL),
    Case("dcn_vector", "dcn", {**SMALL, "cross_layers": 3, "cross": "vector"}),
    Case("dcn_matrix", "dcn", {**SMALL, "cross_layers": 2, "cross": "matrix"}),
    Case(
        "deepfm_factors",
        "deepfm",
        SMALL,
        {
            "embedding": {"ranks": [3, 2, 0], "basis": "field"},
            "mlp.layers.0": {"rank": 3, "activation": "none"},
            "mlp.layers.1": {"rank": 2, "activation": "relu"},
        },
    ),
    Case(
        "wide_deep_factors",
        "wide_deep",
        SMALL,
        {
            "embedding": {"ranks": [1, 3, 2], "basis": "shared"},
            "mlp.layers.0": {"rank": 3, "activation": "none"},
            "wide_dense": {"rank": 1, "activation": "none"},
        },
    ),
    Case(
        "dcn_factors",
        "dcn",
        {**SMALL, "cross_layers": 2, "cross": "matrix"},
        {
            "embedding": {"ranks": [2, 4, 1], "basis": "shared"},
            "cross.layers.0": {"rank": 0, "activation": "none"},
            "cross.layers.1": {"rank": 3, "activation": "none"},
            "mlp.layers.0": {"rank": 2, "activation": "shifted_relu"},
        },
    ),
]


def normal(*shape: int, scale: float = 0.3) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64)


def linear_weights(case: Case, path: str, n: int, m: int, bias: bool = True) -> Weights:
    if path in case.ranks:
        k = case.ranks[path]["rank"]
        parts = {
            "down": normal(k, n, scale=0.6),
            "down_bias": normal(k),
            "up": normal(m, k, scale=0.6),
            "up_bias": normal(m),
        }
    else:
        parts = {"weight": normal(m, n)} | ({"bias": normal(m)} if bias else {})
    return {f"{path}.{name}": value for name, value in parts.items()}


def embedding_weights(shape: Shape) -> Weights:
    wide, dim = int(shape.wide), shape.embedding_dim
    if not shape.ranks:
        return {"embedding.weight": normal(sum(shape.cardinalities), dim + wide, scale=0.6)}
    values = sum(n * (k + wide) for n, k in zip(shape.cardinalities, shape.ranks, strict=True))
    basis_rows = max(shape.ranks) if shape.shared_basis else sum(shape.ranks)
    return {
        "embedding.latent": normal(values, scale=0.6),
        "embedding.basis": normal(basis_rows, dim, scale=0.6),
        "embedding.offset": normal(len(shape.cardinalities), dim),
    }


def mlp_weights(case: Case, n: int) -> tuple[Weights, int]:
    """The hidden layers and the width of the last."""
    weights: Weights = {}
    for i, width in enumerate(case.options["hidden"]):
        weights |= linear_weights(case, f"mlp.layers.{i}", n, width)
        if case.shape.batch_norm:
            norm = f"mlp.norms.{i}"
            weights[f"{norm}.weight"] = 1.0 + normal(width)
            weights[f"{norm}.bias"] = normal(width)
            weights[f"{norm}.running_mean"] = normal(width)
            weights[f"{norm}.running_var"] = 0.5 + torch.rand(width, dtype=torch.float64)
            weights[f"{norm}.num_batches_tracked"] = torch.tensor(3.0, dtype=torch.float64)
        n = width
    return weights, n


def make_weights(case: Case) -> Weights:
    shape, dense_count = case.shape, len(case.fields) - len(case.id_fields)
    n = len(shape.cardinalities) * shape.embedding_dim + dense_count
    hidden, last = mlp_weights(case, n)
    weights = embedding_weights(shape) | hidden
    if case.model == "dcn":
        layers = case.options["cross_layers"]
        if case.options["cross"] == "vector":
            weights |= {"cross.weight": normal(layers, n), "cross.bias": normal(layers, n)}
        else:
            for i in range(layers):
                weights |= linear_weights(case, f"cross.layers.{i}", n, n)
        return weights | linear_weights(case, "head", n + last, 1)
    weights |= linear_weights(case, "mlp.head", last, 1) | {"bias": normal(1)}
    return weights | (linear_weights(case, "wide_dense", dense_count, 1, bias=False) if dense_count else {})


def make_batch(case: Case) -> Weights:
    columns = []
    for f in case.id_fields:
        slots = f.get("max_values", 1)
        ids = torch.randint(f["cardinality"], (ROWS, slots))
        if slots > 1:
            ids[torch.rand(ROWS, slots) < 0.4] = -1
            ids[0] = -1  # a row with no value at all
        columns.append(ids)
    dense_count = len(case.fields) - len(case.id_fields)
    return {
        "ids": torch.cat(columns, 1).int(),
        "dense": normal(ROWS, dense_count, scale=1.0),
        "label": (torch.rand(ROWS) < 0.4).double(),
    }


def expected(case: Case, weights: Weights, batch: Weights, training: bool) -> Weights:
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    leaves = {name: value.clone().requires_grad_(not name.endswith(buffers)) for name, value in weights.items()}
    seen: Weights = {}
    logits = MODELS[case.model](leaves, case.shape, batch["ids"], batch["dense"], training, seen)
    probability = torch.sigmoid(logits)
    label = batch["label"]
    loss = -(label * torch.log(probability) + (1.0 - label) * torch.log(1.0 - probability)).mean()
    loss.backward()
    mode = "train" if training else "eval"
    result = {f"{mode}.logits": logits.detach()}
    for name, leaf in leaves.items():
        if leaf.requires_grad:
            result[f"{mode}.grad.{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return result | {f"{mode}.state.{name}": value for name, value in seen.items()}


def metadata(case: Case) -> dict[str, str]:
    ranks = {"kind": "afm-rank-plan", "version": 1, "layers": case.ranks}
    schema = {"label": "label", "fields": case.fields}
    return {
        "model": case.model,
        "options": json.dumps(case.options),
        "schema": json.dumps(schema),
        "ranks": json.dumps(ranks),
    }


def main() -> None:
    torch.manual_seed(1)
    for case in CASES:
        weights, batch = make_weights(case), make_batch(case)
        tensors = {f"weight.{name}": value for name, value in weights.items()} | batch
        tensors |= expected(case, weights, batch, training=False) | expected(case, weights, batch, training=True)
        save_file(
            {k: v.contiguous() for k, v in tensors.items()}, GOLDEN / f"model_{case.name}.safetensors", metadata(case)
        )


if __name__ == "__main__":
    main()

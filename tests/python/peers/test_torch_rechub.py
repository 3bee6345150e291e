"""torch-rechub: its ranking models, trained by its CTRTrainer."""

from functools import partialmethod
from itertools import islice

import numpy as np
import pytest
import torch
import torch_rechub.models.ranking as zoo
from clicks import BATCH, FEW, HISTORY, ROWS, VALID, VOCABULARY, clicks
from harness import PeerTests
from subjects import LastSigmoid, Peer, trained
from torch import nn
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator

WIDTH = 16
MLP = {"dims": [64, 32]}


# Larger than by default: batch norms of products of embeddings do not follow their growth from 1e-4 in so few steps.
TABLE = {"initializer": RandomNormal(0, 0.1)}


def features():
    """Made anew for every model: a feature keeps the table that was made for it."""
    ids = {name: SparseFeature(name, size, WIDTH, padding_idx=0, **TABLE) for name, size in VOCABULARY.items()}
    shared = {"embed_dim": WIDTH, "padding_idx": 0, "shared_with": "item", "vocab_size": VOCABULARY["item"]}
    pooled = SequenceFeature("history", pooling="mean", **shared)
    steps = SequenceFeature("history", pooling="concat", **shared)
    others = SequenceFeature("not_clicked", pooling="concat", **shared)
    return ids, pooled, steps, others


def deep_and_wide(cls):
    ids, pooled, _, _ = features()
    columns = [*ids.values(), pooled]
    return cls([*columns, DenseFeature("price")], columns, mlp_params=MLP)


def of_fields(cls, *args, history=True, price=False, **kwargs):
    ids, pooled, _, _ = features()
    columns = [*ids.values(), *([pooled] if history else []), *([DenseFeature("price")] if price else [])]
    return cls(columns, *args, **kwargs)


def field_aware(cls, **kwargs):
    """A field's table has a row per id and field that it meets."""
    linear = [SparseFeature(name, size, 1, **TABLE) for name, size in VOCABULARY.items()]
    cross = [SparseFeature(name, size * len(VOCABULARY), WIDTH, **TABLE) for name, size in VOCABULARY.items()]
    return cls(linear, cross, embed_dim=WIDTH, mlp_params=MLP, **kwargs)


def sequential(cls, price=True, **kwargs):
    ids, _, steps, _ = features()
    target = ids.pop("item")
    context = [*ids.values(), *([DenseFeature("price")] if price else [])]
    return cls(context, [steps], [target], mlp_params=dict(MLP), **kwargs)


ENCODER = nn.TransformerEncoderLayer.__init__


def transformer():
    """With 128 units between its linear layers: of 2048, which is what it sets, the eigenvalues alone take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.TransformerEncoderLayer, "__init__", partialmethod(ENCODER, dim_feedforward=128))
        return sequential(zoo.BST, nhead=2, max_seq_len=HISTORY + 1)


def evolving():
    ids, _, steps, others = features()
    target = ids.pop("item")
    return zoo.DIEN([*ids.values(), DenseFeature("price")], [steps], [others], [target], mlp_params=dict(MLP))


def interacting():
    ids, _, _, _ = features()
    return zoo.AutoInt(list(ids.values()), [DenseFeature("price")], num_layers=2, mlp_params=MLP)


MODELS = {
    "AFM": lambda: of_fields(zoo.AFM, WIDTH, t=16),
    "AutoInt": interacting,
    "BST": transformer,
    "DCN": lambda: of_fields(zoo.DCN, 2, MLP, price=True),
    "DCNv2": lambda: of_fields(zoo.DCNv2, 2, MLP, price=True, use_low_rank_mixture=False),
    "DCNv2-mixture": lambda: of_fields(zoo.DCNv2, 2, MLP, price=True, low_rank=8, num_experts=2),
    "DIEN": evolving,
    "DIN": lambda: sequential(zoo.DIN, price=False, attention_mlp_params={"dims": [32, 16]}),
    "DeepFFM": lambda: field_aware(zoo.DeepFFM),
    "FatDeepFFM": lambda: field_aware(zoo.FatDeepFFM, reduction_ratio=2),
    "DeepFM": lambda: deep_and_wide(zoo.DeepFM),
    "EDCN": lambda: of_fields(zoo.EDCN, 2, {}),
    "FiBiNet": lambda: of_fields(zoo.FiBiNet, MLP, history=False),
    "WideDeep": lambda: deep_and_wide(zoo.WideDeep),
}
WITH_LOSS = (zoo.DIEN,)  # these return a loss of their own beside the probability


def inputs(seed, rows):
    rows = clicks(seed, rows)
    others = np.random.default_rng(seed).integers(1, VOCABULARY["item"], rows["history"].shape)
    x = {name: rows[name] for name in [*VOCABULARY, "price", "history"]}
    return x | {"not_clicked": np.where(rows["history"] > 0, others, 0)}, rows["click"]


def logits(model, batch):
    with LastSigmoid() as last:
        model(batch[0])
    return last.input


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rechub")
    x, y = inputs(1, ROWS)
    x_valid, y_valid = inputs(2, VALID)
    train, valid, _ = DataGenerator(x, y).generate_dataloader(
        x_val=x_valid, y_val=y_valid, x_test=x_valid, y_test=y_valid, batch_size=BATCH
    )
    train.sampler.generator = torch.Generator().manual_seed(1)

    def fit(model, epochs):
        trainer = CTRTrainer(
            model,
            optimizer_params={"lr": 1e-3, "weight_decay": 1e-6},
            regularization_params={"embedding_l1": 0.0, "embedding_l2": 1e-6, "dense_l1": 0.0, "dense_l2": 1e-6},
            n_epoch=epochs,
            loss_mode=not isinstance(model, WITH_LOSS),
            model_path=str(folder),
        )
        trainer.fit(train, valid)
        return trainer.optimizer

    return Peer(
        name="torch-rechub 0.9.0",
        build=lambda name: MODELS[name](),
        fit=fit,
        batches=list(islice(train, FEW)),
        forward=lambda model, batch: model(batch[0]),
        logits=logits,
        labels=lambda batch: batch[1],
        epochs=5,
    )


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peer):
    return trained(peer, request.param)


class TestTorchRechub(PeerTests):
    pass

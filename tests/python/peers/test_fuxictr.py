"""FuxiCTR: nine models as its users write them, read by its loader and trained by BaseModel.fit."""

from itertools import islice

import numpy as np
import pytest
import torch
from clicks import BATCH, FEW, HISTORY, VALID, VOCABULARY, clicks
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr_models import MODELS
from harness import PeerTests
from subjects import Peer, input_of, trained

WIDTH = 16


def feature_map(folder):
    features = FeatureMap("clicks", str(folder))
    ids = {"type": "categorical", "source": "", "padding_idx": 0}
    features.features = {name: ids | {"vocab_size": size} for name, size in VOCABULARY.items()}
    features.features["price"] = {"type": "numeric", "source": ""}
    # One table object under two names, as share_embedding makes it.
    features.features["history"] = {
        "type": "sequence",
        "source": "",
        "padding_idx": 0,
        "vocab_size": VOCABULARY["item"],
        "max_len": HISTORY,
        "share_embedding": "item",
        "feature_encoder": "layers.MaskedAveragePooling()",
    }
    features.labels, features.default_emb_dim = ["click"], WIDTH
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    return features


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuxictr")
    (folder / "clicks").mkdir()  # for its checkpoints
    features = feature_map(folder)
    for split, rows in (("train", clicks(1)), ("valid", clicks(2, VALID))):
        np.savez(folder / f"{split}.npz", **rows)
    train, valid = RankDataLoader(
        features,
        stage="train",
        train_data=str(folder / "train.npz"),
        valid_data=str(folder / "valid.npz"),
        batch_size=BATCH,
        num_workers=0,
    )
    train.sampler.generator = torch.Generator().manual_seed(1)

    def build(name):
        return MODELS[name](
            features,
            embedding_dim=WIDTH,
            learning_rate=3e-3,
            optimizer="adam",
            loss="binary_crossentropy",
            metrics=["AUC", "logloss"],
            embedding_regularizer=1e-6,
            net_regularizer=1e-6,
            model_root=str(folder),
            verbose=0,
        )

    def fit(model, epochs):
        model.fit(train, epochs=epochs, validation_data=valid)
        return model.optimizer

    return Peer(
        name="FuxiCTR 2.3.10",
        build=build,
        fit=fit,
        batches=list(islice(train, FEW)),
        forward=lambda model, batch: model(batch),
        logits=lambda model, batch: input_of(model.output_activation, lambda: model(batch)),
        held=lambda model: model.optimizer,
        labels=lambda batch: batch["click"],
    )


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peer):
    return trained(peer, request.param)


class TestFuxiCTR(PeerTests):
    def test_its_regularizer_is_on_every_factor(self, subject):
        small, _ = subject.compress(ratio=2)
        small.regularization_loss().backward()
        assert all(parameter.grad is not None for parameter in small.parameters() if parameter.requires_grad)

    def test_features_that_shared_a_table_still_do(self, subject):
        small, _ = subject.compress(ratio=2)
        tables = small.embedding_layer.embedding_layer.embedding_layers
        assert tables["history"] is tables["item"]

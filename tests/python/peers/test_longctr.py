"""LongCTR, the models of long histories that the wheel of FuxiCTR brings along, with its own loader."""

import importlib
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from clicks import BATCH, FEW, HISTORY, VALID, VOCABULARY, clicks
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from harness import PeerTests
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader
from subjects import Peer, input_of, trained

WIDTH, SHORT = 16, 4
MLP = {"dnn_hidden_units": [64, 32]}
ATTENTION = MLP | {"attention_dim": 16, "num_heads": 2, "short_seq_len": SHORT}
TOP = {"topk": SHORT}
MODELS = {
    "DIN": MLP | {"attention_hidden_units": [32]},
    "DIEN": MLP | {"attention_hidden_units": [32]},
    "ETA": ATTENTION | TOP,
    "SIM": ATTENTION | TOP,
    "TWIN": ATTENTION | TOP,
    "SDIM": ATTENTION,
    "MIRRN": ATTENTION | TOP | {"max_len": HISTORY},
    "TransAct": {"dcn_hidden_units": [64, 32], "dim_feedforward": 64, "num_heads": 2, "transformer_layers": 2},
    "FinalMLP": {"mlp1_hidden_units": [64, 32], "mlp2_hidden_units": [64, 32], "num_heads": 2},
    "DCNv2": {"parallel_dnn_hidden_units": [64, 32]},
}
RETRIEVAL = ("ETA", "SIM", "TWIN", "MIRRN")  # rounding may change which items these take from the history


def feature_map(folder):
    features = FeatureMap("clicks", str(folder))
    ids = {"type": "categorical", "padding_idx": 0}
    items = {name: ids | {"source": "item", "vocab_size": VOCABULARY[name]} for name in ("item", "category")}
    others = {name: ids | {"source": "", "vocab_size": VOCABULARY[name]} for name in ("user", "hour", "device")}
    lookups = {name: {"type": "meta", "source": ""} for name in ("user_index", "item_index", "seq_len")}
    features.features = items | others | lookups
    features.labels, features.default_emb_dim = ["click"], WIDTH
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    return features


def write_tables(folder, split, rows):
    """One table of rows, one of the histories, which the rows name by `user_index`."""
    lengths = (rows["history"] > 0).sum(1)
    columns = {name: rows[name].astype(np.int64) for name in ("user", "hour", "device", "click")}
    lookups = {"user_index": np.arange(len(lengths)), "item_index": rows["item"], "seq_len": lengths}
    pd.DataFrame(columns | lookups).to_parquet(folder / f"{split}.parquet")
    pd.DataFrame({"full_item_seq": list(rows["history"])}).to_parquet(folder / f"{split}_users.parquet")


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longctr")
    (folder / "clicks").mkdir()  # for its checkpoints
    features = feature_map(folder)
    item = np.arange(VOCABULARY["item"])
    items = {
        "item_index": item,
        "item": item,
        "category": np.where(item > 0, 1 + item % (VOCABULARY["category"] - 1), 0),
    }
    pd.DataFrame(items).to_parquet(folder / "items.parquet")
    loaders = {}
    for split, rows in (("train", clicks(1)), ("valid", clicks(2, VALID))):
        write_tables(folder, split, rows)
        loaders[split], _ = RankDataLoader(
            features,
            stage="train",
            train_data=str(folder / f"{split}.parquet"),
            batch_size=BATCH,
            data_loader=LongCTRDataLoader,
            user_info=str(folder / f"{split}_users.parquet"),
            item_info=str(folder / "items.parquet"),
            max_len=HISTORY,
            num_workers=0,
        )

    def build(name):
        cls = getattr(importlib.import_module(f"model_zoo.LongCTR.{name}"), name)
        return cls(
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
            **MODELS[name],
        )

    def fit(model, epochs):
        model.fit(loaders["train"], epochs=epochs, validation_data=loaders["valid"])
        return model.optimizer

    return Peer(
        name="FuxiCTR-LongCTR 2.3.10",
        build=build,
        fit=fit,
        batches=list(islice(loaders["train"], FEW)),
        forward=lambda model, batch: model(batch),
        logits=lambda model, batch: input_of(model.output_activation, lambda: model(batch)),
        held=lambda model: model.optimizer,
        epochs=3,
        doubles=RETRIEVAL,
        labels=lambda batch: batch[0]["click"],
    )


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peer):
    return trained(peer, request.param)


class TestLongCTR(PeerTests):
    pass

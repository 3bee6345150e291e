"""DeepCTR-Torch: its models on sparse, dense and sequence columns, trained by their own fit."""

import deepctr_torch.models as zoo
import numpy as np
import pytest
import torch
from clicks import BATCH, FEW, HISTORY, VOCABULARY, clicks
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from harness import PeerTests
from subjects import Peer, input_of, trained

WIDTH = 16
MLP = {"dnn_hidden_units": (64, 32)}
MODELS = {
    "DeepFM": MLP,
    "WDL": MLP,
    "DCN": MLP | {"cross_parameterization": "vector"},
    "DCN-matrix": MLP | {"cross_parameterization": "matrix"},
    "DCNMix": MLP | {"low_rank": 8, "num_experts": 2},
    "xDeepFM": MLP | {"cin_layer_size": (16, 16)},
    "AutoInt": MLP | {"att_layer_num": 2},
    "FiBiNET": MLP,
    "NFM": MLP,
    "AFN": {"ltl_hidden_size": 32, "afn_dnn_hidden_units": (64, 32)},
    "PNN": MLP | {"use_outter": True},
    "IFM": MLP,
    "DIFM": MLP,
    "CCPM": MLP | {"conv_kernel_width": (4, 3)},
    "DIN": MLP | {"att_hidden_size": (32, 16)},
}


COUNTS_TABLES = ("xDeepFM", "AutoInt", "FiBiNET", "AFN")  # as fields, so that no two of these may share one
INIT_STD = 0.03  # with the default of 1e-4, CCPM learns nothing in so few steps


def columns(name, price=True):
    """Ids, the price, and the history, which shares the table of the items."""
    found = [SparseFeat(field, size, WIDTH) for field, size in VOCABULARY.items()]
    found += [DenseFeat("price", 1)] if price else []
    table = "hist_item" if name in COUNTS_TABLES else "item"
    history = SparseFeat("hist_item", VOCABULARY["item"], WIDTH, embedding_name=table)
    return [*found, VarLenSparseFeat(history, HISTORY, length_name="length")]


def build(name):
    model = built(name)
    model.compile(torch.optim.Adam(model.parameters(), lr=3e-3), "binary_crossentropy", metrics=["auc"])
    return model


def built(name):
    cls, options = getattr(zoo, name.split("-")[0]), MODELS[name] | {"init_std": INIT_STD}
    if name == "DIN":
        return cls(columns(name), ["item"], **options)
    if name == "PNN":
        return cls(columns(name), **options)
    return cls(columns(name), columns(name, price=name != "CCPM"), **options)  # CCPM takes embeddings only


@pytest.fixture(scope="module")
def peer():
    rows = clicks(1)
    inputs = {**rows, "hist_item": rows["history"], "length": (rows["history"] > 0).sum(1)}
    inputs = {name: inputs[name].astype(np.float32) for name in columns_order()}
    labels = rows["click"]

    def fit(model, epochs):
        model.fit(dict(inputs), labels, batch_size=BATCH, epochs=epochs, verbose=0)
        return model.optim

    X = torch.from_numpy(np.concatenate([inputs[name].reshape(len(labels), -1) for name in columns_order()], 1))
    return Peer(
        name="DeepCTR-Torch 0.3.0",
        build=build,
        fit=fit,
        batches=list(zip(X.split(BATCH), torch.from_numpy(labels).split(BATCH), strict=True))[:FEW],
        forward=lambda model, batch: model(batch[0]),
        logits=lambda model, batch: input_of(model.out, lambda: model(batch[0])),
        held=lambda model: model.optim,
        labels=lambda batch: batch[1],
        ratios={"DCN-matrix": 1.5},  # its kernels are bare parameters
        doubles=["AFN"],  # it takes the logarithm of embeddings, also of those near zero
    )


def columns_order():
    """Of the columns of a batch: that of every model's feature_index."""
    return [*VOCABULARY, "price", "hist_item", "length"]


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peer):
    return trained(peer, request.param)


class TestDeepCTRTorch(PeerTests):
    def test_the_penalty_is_on_the_new_layers(self, subject):
        small, _ = subject.compress(ratio=subject.peer.ratios.get(subject.name, 2.0))
        parameters = {id(parameter) for parameter in small.parameters()}
        held = [entry for entries, _, _ in small.regularization_weight for entry in entries]
        tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in held]
        assert all(id(tensor) in parameters for tensor in tensors)
        weights = {id(p) for name, p in small.embedding_dict.named_parameters() if name.endswith("weight")}
        assert weights <= {id(tensor) for tensor in tensors}

"""pytorch-widedeep: a wide and a deep part for tables, prepared by its preprocessors and trained by its Trainer."""

from itertools import islice

import pandas as pd
import pytest
import torch
from clicks import BATCH, FEW, VOCABULARY, clicks
from harness import PeerTests
from pytorch_widedeep import Trainer
from pytorch_widedeep.models import FTTransformer, TabMlp, TabResnet, TabTransformer, Wide, WideDeep
from pytorch_widedeep.preprocessing import TabPreprocessor, WidePreprocessor
from pytorch_widedeep.training._wd_dataset import WideDeepDataset
from subjects import Peer, trained
from torch.utils.data import DataLoader

WIDTH = 16
MODELS = {
    "Wide + TabMlp": (TabMlp, {"mlp_hidden_dims": [64, 32]}),
    "Wide + TabResnet": (TabResnet, {"blocks_dims": [64, 32], "mlp_hidden_dims": [32]}),
    "Wide + TabTransformer": (TabTransformer, {"input_dim": WIDTH, "n_heads": 2, "n_blocks": 2}),
    "Wide + FTTransformer": (FTTransformer, {"input_dim": WIDTH, "n_heads": 2, "n_blocks": 2}),
}


ATTENTION = ("Wide + TabTransformer", "Wide + FTTransformer")  # these number the values of all columns together


def peer_of(attention):
    rows = clicks(1)
    table = pd.DataFrame({name: rows[name] for name in [*VOCABULARY, "price"]})
    X_wide = WidePreprocessor(wide_cols=list(VOCABULARY)).fit_transform(table)
    columns = list(VOCABULARY) if attention else [(name, WIDTH) for name in VOCABULARY]
    tab = TabPreprocessor(cat_embed_cols=columns, continuous_cols=["price"], for_transformer=attention)
    X_tab = tab.fit_transform(table)

    def build(name):
        cls, options = MODELS[name]
        columns = {"cat_embed_input": tab.cat_embed_input, "continuous_cols": tab.continuous_cols}
        deep = cls(column_idx=tab.column_idx, **columns, **options)
        return WideDeep(wide=Wide(input_dim=X_wide.max(), pred_dim=1), deeptabular=deep)

    def fit(model, epochs):
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        trainer = Trainer(model, objective="binary", optimizers=optimizer, verbose=0)
        trainer.fit(X_wide=X_wide, X_tab=X_tab, target=rows["click"], n_epochs=epochs, batch_size=BATCH)
        return optimizer

    loader = DataLoader(WideDeepDataset(X_wide=X_wide, X_tab=X_tab, target=rows["click"]), batch_size=BATCH)
    return Peer(
        name="pytorch-widedeep 1.7.0",
        build=build,
        fit=fit,
        batches=list(islice(loader, FEW)),
        forward=lambda model, batch: model(batch[0]),
        logits=lambda model, batch: model(batch[0]),
        labels=lambda batch: batch[1],
    )


@pytest.fixture(scope="module")
def peers():
    return {attention: peer_of(attention) for attention in (False, True)}


@pytest.fixture(scope="module", params=MODELS)
def subject(request, peers):
    return trained(peers[request.param in ATTENTION], request.param)


class TestPytorchWidedeep(PeerTests):
    pass

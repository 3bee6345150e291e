"""FuxiCTR's own DeepFM in FuxiCTR's own trainer, on the rows of a .npz file: prints seconds per epoch as JSON lines.

Runs in an environment with fuxictr 2.3.10 (it needs polars < 2). Reads one line on standard input per epoch to run,
so that train_cpu.py can take turns between the peers.

    python fuxictr_deepfm.py rows.npz cardinalities.json
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel


class DeepFM(BaseModel):
    """As in FuxiCTR's model zoo."""

    def __init__(self, feature_map: FeatureMap, **kwargs) -> None:
        super().__init__(feature_map, model_id="DeepFM", embedding_regularizer=0.05, **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, 10)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=[400, 400, 400],
            hidden_activations="ReLU",
            dropout_rates=0.2,
            batch_norm=True,
        )
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        embedded = self.embedding_layer(x)
        logits = self.fm(x, embedded) + self.mlp(embedded.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def feature_map_of(cardinalities: dict[str, int], folder: str) -> FeatureMap:
    features = FeatureMap("frappe", folder)
    features.labels = ["label"]
    features.features = OrderedDict(
        (name, {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": size, "embedding_dim": 10})
        for name, size in cardinalities.items()
    )
    features.num_fields = len(cardinalities)
    features.default_emb_dim = 10
    features.set_column_index()
    return features


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows, cardinalities = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        features = feature_map_of(cardinalities, folder)
        model = DeepFM(features, gpu=-1, verbose=0, model_root=folder, metrics=["AUC"])
        loader, _ = RankDataLoader(features, stage="train", train_data=rows, batch_size=4096, num_workers=1)
        model._max_gradient_norm, model._total_steps, model._batch_index = 10.0, 0, 0
        model._stop_training, model._eval_steps, model._epoch_index = False, 10**9, 0
        model._steps_per_epoch = len(loader)
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            model.train_epoch(loader)
            print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()

"""FuxiCTR's own DeepFM in FuxiCTR's own trainer, on the rows of a .npz file: prints seconds per epoch as JSON lines.

With "in_memory" in the settings its train_epoch gets batches that lie ready in memory instead of its loader's.

Runs in an environment with fuxictr 2.3.10 (it needs polars < 2). Reads one line on standard input per epoch to run,
so that a benchmark can take turns between the peers.

    python fuxictr_deepfm.py rows.npz settings.json
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel


class DeepFM(BaseModel):
    """As in FuxiCTR's model zoo."""

    def __init__(self, feature_map: FeatureMap, settings: dict, **kwargs) -> None:
        super().__init__(feature_map, model_id="DeepFM", embedding_regularizer=settings["l2"], **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, settings["width"])
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(
            input_dim=feature_map.sum_emb_out_dim(),
            output_dim=1,
            hidden_units=[400, 400, 400],
            hidden_activations="ReLU",
            dropout_rates=settings["dropout"],
            batch_norm=settings["batch_norm"],
        )
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        embedded = self.embedding_layer(x)
        logits = self.fm(x, embedded) + self.mlp(embedded.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def feature_map_of(settings: dict, folder: str) -> FeatureMap:
    cardinalities, width = settings["cardinalities"], settings["width"]
    features = FeatureMap("rows", folder)
    features.labels = ["label"]
    features.features = OrderedDict(
        (name, {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": size, "embedding_dim": width})
        for name, size in cardinalities.items()
    )
    features.num_fields = len(cardinalities)
    features.default_emb_dim = width
    features.set_column_index()
    return features


def batches_in_memory(rows: str, columns: list[str], batch: int) -> list[dict[str, torch.Tensor]]:
    arrays = {name: torch.from_numpy(values) for name, values in np.load(rows).items()}
    order = torch.randperm(len(arrays["label"])).split(batch)
    return [{name: arrays[name][index] for name in [*columns, "label"]} for index in order]


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows, settings = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    batch = settings["batch"]
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        features = feature_map_of(settings, folder)
        model = DeepFM(
            features, settings, gpu=0 if settings["gpu"] else -1, verbose=0, model_root=folder, metrics=["AUC"]
        )
        if settings["in_memory"]:
            loader = batches_in_memory(rows, list(features.features), batch)
        else:
            loader, _ = RankDataLoader(features, stage="train", train_data=rows, batch_size=batch, num_workers=1)
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

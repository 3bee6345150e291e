"""Compresses a FuxiCTR model: trained by FuxiCTR, made four times smaller, trained on by FuxiCTR.

python examples/python/compress_fuxictr.py
"""

import logging
import tempfile
from collections import OrderedDict
from pathlib import Path

import afm
import numpy as np

try:
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.dataloaders import RankDataLoader
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel
except ImportError as error:
    raise SystemExit(f"This example needs FuxiCTR: pip install fuxictr==2.3.10 'polars<2' ({error})") from error

FIELDS, IDS, WIDTH = 6, 300, 16


class DeepFM(BaseModel):
    """As in FuxiCTR's model zoo."""

    def __init__(self, feature_map, folder):
        super().__init__(feature_map, "DeepFM", gpu=-1, verbose=0, model_root=folder, metrics=["AUC"])
        self.embedding_layer = FeatureEmbedding(feature_map, WIDTH)
        self.fm = FactorizationMachine(feature_map)
        self.mlp = MLP_Block(input_dim=feature_map.sum_emb_out_dim(), output_dim=1, hidden_units=[128, 128])
        self.compile("adam", "binary_crossentropy", 3e-3)
        self.reset_parameters()

    def forward(self, inputs):
        x = self.get_inputs(inputs)
        embedded = self.embedding_layer(x)
        logits = self.fm(x, embedded) + self.mlp(embedded.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logits)}


def write_clicks(path: Path, rows: int, seed: int) -> None:
    """Clicks that follow from two tastes per id, alone and in one pair of fields; id 0 is FuxiCTR's padding."""
    taste = np.random.default_rng(0).normal(size=(FIELDS, IDS, 2))
    random = np.random.default_rng(seed)
    ids = random.integers(1, IDS, (rows, FIELDS))
    vectors = taste[np.arange(FIELDS), ids]
    logits = vectors[..., 0].sum(1) + vectors[:, 0, 1] * vectors[:, 1, 1]
    clicks = random.random(rows) < 1 / (1 + np.exp(-logits))
    np.savez(path, **{f"f{j}": ids[:, j] for j in range(FIELDS)}, label=clicks.astype(float))


def loaders(folder: Path):
    """FuxiCTR's feature map, and its loaders of training, validation and test rows."""
    features = FeatureMap("clicks", str(folder))
    features.labels, features.num_fields, features.default_emb_dim = ["label"], FIELDS, WIDTH
    spec = {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": IDS, "embedding_dim": WIDTH}
    features.features = OrderedDict((f"f{j}", dict(spec)) for j in range(FIELDS))
    features.set_column_index()
    for seed, (split, rows) in enumerate({"train": 30_000, "valid": 5_000, "test": 10_000}.items(), 1):
        write_clicks(folder / f"{split}.npz", rows, seed)
    paths = {f"{split}_data": str(folder / f"{split}.npz") for split in ("train", "valid", "test")}
    return features, *RankDataLoader(features, **paths, batch_size=1000)


def main() -> None:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        features, train, valid, test = loaders(Path(folder))
        (Path(folder) / "clicks").mkdir()  # where FuxiCTR keeps its checkpoint
        model = DeepFM(features, folder)
        model.fit(train, epochs=3, validation_data=valid)

        small, report = afm.compress(model, train, ratio=4)
        compressed = small.evaluate(test)
        small.compile("adam", "binary_crossentropy", 1e-3)  # a new optimizer, for the new parameters
        report.check_optimizer(small.optimizer)
        small.fit(train, epochs=2, validation_data=valid)

        print(report, end="\n\n")
        before, after = f"{report.parameters_before:>10,}", f"{report.parameters_after:>10,}"
        print(f"{'':<12}parameters   test AUC")
        print(f"{'before':<12}{before}   {model.evaluate(test)['AUC']:.4f}")
        print(f"{'compressed':<12}{after}   {compressed['AUC']:.4f}")
        print(f"{'trained on':<12}{after}   {small.evaluate(test)['AUC']:.4f}")


if __name__ == "__main__":
    main()

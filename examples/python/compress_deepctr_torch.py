"""Compresses a DeepCTR-Torch model: trained by DeepCTR-Torch, made four times smaller, trained on by DeepCTR-Torch.

python examples/python/compress_deepctr_torch.py
"""

import afm
import numpy as np
import torch

try:
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DeepFM
except ImportError as error:
    raise SystemExit(
        f"This example needs DeepCTR-Torch: pip install deepctr-torch==0.3.0 requests ({error})"
    ) from error

FIELDS, IDS, WIDTH = 6, 300, 16


def clicks(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Clicks that follow from two tastes per id, alone and in one pair of fields."""
    taste = np.random.default_rng(0).normal(size=(FIELDS, IDS, 2))
    random = np.random.default_rng(seed)
    ids = random.integers(0, IDS, (rows, FIELDS))
    vectors = taste[np.arange(FIELDS), ids]
    logits = vectors[..., 0].sum(1) + vectors[:, 0, 1] * vectors[:, 1, 1]
    labels = random.random(rows) < 1 / (1 + np.exp(-logits))
    return {f"f{j}": ids[:, j] for j in range(FIELDS)}, labels.astype(np.float32)


def main() -> None:
    (train_x, train_y), (test_x, test_y) = clicks(30_000, seed=1), clicks(10_000, seed=2)
    columns = [SparseFeat(f"f{j}", vocabulary_size=IDS, embedding_dim=WIDTH) for j in range(FIELDS)]

    model = DeepFM(columns, columns, dnn_hidden_units=(128, 128), init_std=0.01)
    model.compile(torch.optim.Adam(model.parameters(), lr=3e-3), "binary_crossentropy", metrics=["auc"])
    model.fit(train_x, train_y, batch_size=1000, epochs=3, verbose=0)

    # DeepCTR-Torch's models take one tensor, with the features in the order of model.feature_index.
    rows = torch.tensor(np.stack([train_x[name] for name in model.feature_index], 1)).float()
    small, report = afm.compress(model, rows.split(1000), ratio=4)
    compressed = small.evaluate(test_x, test_y)

    optimizer = torch.optim.Adam(afm.parameter_groups(small, lr=1e-3))  # a new one, for the new parameters
    report.check_optimizer(optimizer)
    small.compile(optimizer, "binary_crossentropy", metrics=["auc"])
    small.fit(train_x, train_y, batch_size=1000, epochs=2, verbose=0)

    print(report, end="\n\n")
    before, after = f"{report.parameters_before:>10,}", f"{report.parameters_after:>10,}"
    print(f"{'':<12}parameters   test AUC")
    print(f"{'before':<12}{before}   {model.evaluate(test_x, test_y)['auc']:.4f}")
    print(f"{'compressed':<12}{after}   {compressed['auc']:.4f}")
    print(f"{'trained on':<12}{after}   {small.evaluate(test_x, test_y)['auc']:.4f}")


if __name__ == "__main__":
    main()

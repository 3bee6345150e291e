"""Writes tests/golden/metrics.safetensors: logits with many ties, their labels, and what scikit-learn says of them.

    python tests/reference/make_metric_vectors.py

Per case k: case<k>.logits float32 [N], case<k>.labels float32 [N], case<k>.auc and case<k>.logloss float64 [].
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from sklearn.metrics import log_loss, roc_auc_score

GOLDEN = Path(__file__).parent.parent / "golden" / "metrics.safetensors"


def case(rng: np.random.Generator, rows: int, levels: int, rate: float, spread: float) -> dict[str, np.ndarray]:
    """`levels` distinct logits, so rows / levels ties on average."""
    logits = rng.choice(rng.normal(0.0, spread, levels), rows).astype(np.float32)
    noise = rng.normal(0.0, spread, rows)
    labels = (logits + noise > np.quantile(logits + noise, 1.0 - rate)).astype(np.float32)
    probability = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return {
        "logits": logits,
        "labels": labels,
        "auc": np.array(roc_auc_score(labels, logits)),
        "logloss": np.array(log_loss(labels, probability)),
    }


def main() -> None:
    rng = np.random.default_rng(1)
    settings = [
        (2000, 2000, 0.5, 1.0),
        (2000, 50, 0.1, 2.0),
        (1000, 3, 0.3, 1.0),
        (500, 1, 0.4, 1.0),
        (1000, 200, 0.01, 3.0),
    ]
    tensors = {f"case{k}.{name}": value for k, s in enumerate(settings) for name, value in case(rng, *s).items()}
    save_file(tensors, GOLDEN)


if __name__ == "__main__":
    main()

"""DeepCTR-Torch's own DeepFM in its own fit, on the rows of a .npz file: prints seconds per epoch as JSON lines.

Runs in an environment with deepctr-torch 0.3.0. Reads one line on standard input per epoch to run.

    python deepctr_deepfm.py rows.npz settings.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import DeepFM


def main() -> None:
    settings = json.loads(Path(sys.argv[2]).read_text())
    torch.manual_seed(1)
    rows = dict(np.load(sys.argv[1]))
    label = rows.pop("label")
    fields = [SparseFeat(name, size, settings["width"]) for name, size in settings["cardinalities"].items()]
    model = DeepFM(
        fields,
        fields,
        dnn_hidden_units=(400, 400, 400),
        dnn_dropout=settings["dropout"],
        dnn_use_bn=settings["batch_norm"],
        l2_reg_embedding=settings["l2"],
        l2_reg_linear=settings["l2"],
        device="cuda:0" if settings["gpu"] else "cpu",
    )
    model.compile("adam", "binary_crossentropy")
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        model.fit(rows, label, batch_size=settings["batch"], epochs=1, verbose=0)
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main()

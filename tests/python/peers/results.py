"""What the tests of this run found, written to $AFM_PEER_RESULTS for table.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CHECKS = ("full rank", "half rank", "trains on", "reloads")

_results: dict[str, dict[str, dict[str, Any]]] = {}


def result_of(peer: str, model: str) -> dict[str, Any]:
    """To be filled in. A model works when all CHECKS are among its "checks"."""
    return _results.setdefault(peer, {}).setdefault(model, {"checks": []})


def write_results() -> None:
    folder = os.environ.get("AFM_PEER_RESULTS")
    if folder is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for peer, models in _results.items():
        Path(folder, f"{peer.split()[0]}.json").write_text(json.dumps({"peer": peer, "models": models}, indent=1))

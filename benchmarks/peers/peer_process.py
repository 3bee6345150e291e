"""A peer's own trainer in a Python of its own, which takes turns with the other steps of a benchmark."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np


def is_installed(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def peer_epochs(
    python: str, script: str, rows: dict[str, np.ndarray], settings: dict, folder: Path
) -> Callable[[], float]:
    """Starts benchmarks/peers/`script` on `rows` ("label" and a column per field). A call runs an epoch of it and
    returns the seconds that it reports. It ends with this process."""
    np.savez(folder / "rows.npz", **rows)
    (folder / "settings.json").write_text(json.dumps(settings))
    peer = subprocess.Popen(
        [python, str(Path(__file__).parent / script), str(folder / "rows.npz"), str(folder / "settings.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask() -> dict:
        return next(json.loads(line) for line in peer.stdout if line.startswith("{"))

    ask()

    def run() -> float:
        peer.stdin.write("\n")
        peer.stdin.flush()
        return ask()["seconds"]

    return run

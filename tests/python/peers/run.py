"""Runs the tests of peers, each in its own environment, which is made first.

    python run.py BUILD [PEER ...]

The Python that runs this file shares its packages with them; `afm` comes from PYTHONPATH. The results are written to
BUILD/peers/results, from where table.py makes the table of the documentation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from environments import HERE, PEERS, environment

TESTS = {  # of the others: test_PEER.py
    "deepctr_torch": ["test_deepctr_torch.py", "test_examples.py"],
    "fuxictr": ["test_fuxictr.py", "test_longctr.py", "test_examples.py"],
}


def run(build: Path, peer: str) -> int:
    settings = {
        "AFM_PEER_RESULTS": str(build / "peers" / "results"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    python = environment(build, peer)
    options = ["-q", "-p", "no:cacheprovider", "--tb=short", "--disable-warnings"]
    return subprocess.run(
        [python, "-m", "pytest", *options, *TESTS.get(peer, [f"test_{peer}.py"])],
        check=False,
        cwd=HERE,
        env={**os.environ, **settings},
    ).returncode


if __name__ == "__main__":
    sys.exit(max(run(Path(sys.argv[1]).resolve(), peer) for peer in sys.argv[2:] or PEERS))

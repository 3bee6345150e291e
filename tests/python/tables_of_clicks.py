"""Small raw tables for the tests of preparation and of the command line."""

import random
from pathlib import Path

import afm

HEADER = ["click", "user", "price", "tags"]


def click_rows(rows: int, seed: int = 1) -> list[list[str]]:
    """Clicks that follow from the user, a price with gaps, and up to three tags."""
    draw = random.Random(seed)
    made = []
    for _ in range(rows):
        user, tags = draw.randrange(30), draw.sample("abcdef", draw.randrange(4))
        price = "" if draw.random() < 0.1 else f"{draw.lognormvariate(0, 1):.4f}"
        click = draw.random() < (0.85 if user % 2 else 0.15)
        made.append([str(int(click)), f"u{user}", price, "|".join(tags)])
    return made


def write_table(path: Path, rows: list[list[str]], separator: str = ",", header: list[str] | None = HEADER) -> Path:
    lines = [separator.join(row) for row in ([header] if header else []) + rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def everything(dataset: afm.Dataset) -> tuple[list, list, list]:
    """Ids, dense features and labels of all rows, as plain lists that can be compared."""
    batch = dataset.range(0, len(dataset))
    return batch.ids.tolist(), [] if batch.dense is None else batch.dense.tolist(), batch.label.tolist()


def folder_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}

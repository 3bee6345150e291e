"""Raw rows in, probabilities out: tables in batches, JSON lines one by one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from . import _core
from ._core import DataError, Encoder, SafetensorsFile
from .prepare import encode_features
from .serving import Scorer, pack
from .tables import Table

JSON_LINES = {".jsonl", ".ndjson"}


@contextlib.contextmanager
def packed(model: Path, dataset: Path | None) -> Iterator[Path]:
    """The model file with its encoder; packed for the time being when a dataset folder is given."""
    if dataset is None:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="afm-score-") as folder:
        path = Path(folder) / "packed.safetensors"
        pack(model, dataset, path)
        yield path


def encoder_of(path: Path, schema: _core.Schema) -> Encoder:
    """The encoder that a packed model file carries, for whole columns."""
    file = SafetensorsFile.open(path)
    vocabularies = []
    for field in schema.fields:
        if field.kind == "numeric":
            continue
        values: list[bytes] = []
        if not field.hash_buckets:
            data = file.tensor(f"vocabulary.{field.name}.values").numpy().tobytes()
            ends = file.tensor(f"vocabulary.{field.name}.ends").tolist()
            values = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        vocabularies.append((values, np.zeros(len(values), np.int64)))
    return Encoder(schema, vocabularies)


def score_table(path: Path, table: Table, scorer: Scorer) -> Iterator[np.ndarray]:
    """Probabilities of a table's rows, batch by batch. Columns that the model does not name are left alone."""
    names = [field.name for field in scorer.schema.fields]
    for name in names:
        if name not in table.columns:
            raise DataError(f"{table.path.name} has no column {name!r} that the model reads")
    encoder = encoder_of(path, scorer.schema)
    for first, frame in table.batches():
        yield score_frame(scorer, encoder, table, first, frame)


def score_frame(scorer: Scorer, encoder: Encoder, table: Table, first: int, frame: pl.DataFrame) -> np.ndarray:
    return scorer.probabilities(*encode_features(encoder, table, first, frame))


def score_lines(lines: Iterable[str], source: str, scorer: Scorer) -> Iterator[float]:
    """The probability of each JSON object; empty lines are skipped. DataError names the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield scorer.score_json(line)
        except DataError as error:
            raise DataError(f"{source}:{number}: {error}") from error

"""From a raw table to a dataset folder: count, encode, split, write."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from ._core import DataError, DatasetWriter, Encoder, EncoderBuilder, FieldSpec, Schema, hash_strings, write_schema
from .guess import guess_schema, names
from .tables import Table, open_table

SPLITS = ("train", "valid", "test")
Progress = Callable[[str, int], None]  # called with the stage ("count", "encode") and the rows done in it


@dataclass
class PreparedDataset:
    """What prepare() did: the folder, the counted schema, and the rows and click rate per split."""

    folder: Path
    schema: Schema
    rows: dict[str, int] = field(default_factory=dict)
    clicks: dict[str, int] = field(default_factory=dict)
    guessed: bool = False


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    schema: Schema | None = None,
    split: str = "8:1:1",
    valid: str | Path | None = None,
    test: str | Path | None = None,
    label: str | None = None,
    ignore: tuple[str, ...] = (),
    separator: str | None = None,
    has_header: bool | None = None,
    on_progress: Progress | None = None,
) -> PreparedDataset:
    """Reads a table of clicks and writes a dataset folder.

    Args:
        source: CSV, TSV (Criteo's headerless form too) or Parquet file; .gz is fine. The training rows, or all rows.
        out: folder to write; its earlier splits are replaced.
        schema: what the columns are; guessed when absent.
        split: shares of train, valid and test; a row's split is a hash of the row, so equal rows stay together.
        valid, test: files of the other splits; both or none. `split` is then not used.
        label: name of the label column, for the guess.
        ignore: columns to leave out.
        separator, has_header: how to read a text table, where the name does not tell.

    Raises:
        DataError: names the file and line.
    """
    if (valid is None) != (test is None):
        raise ValueError("--valid and --test must be given together")
    shares = parse_split(split)
    tables = [open_table(path, separator=separator, has_header=has_header) for path in (source, valid, test) if path]
    guessed = schema is None
    schema = schema or guess_schema(tables[0], label=label, ignore=ignore)
    for table in tables:
        check_columns(table, schema, ignore, label)
    plan = (
        [(tables[0], shares)] if valid is None else [(table, name) for table, name in zip(tables, SPLITS, strict=True)]
    )

    encoder = count(plan[0][0], schema, plan[0][1], on_progress)
    result = PreparedDataset(Path(out), encoder.schema, guessed=guessed)
    write(plan, encoder, result, on_progress)
    return result


def parse_split(text: str) -> list[int]:
    try:
        shares = [int(part) for part in text.split(":")]
    except ValueError:
        shares = []
    if len(shares) != 3 or min(shares) < 0 or shares[0] == 0:
        raise ValueError(f"--split must be three whole numbers such as 8:1:1, the first above 0, got {text!r}")
    return shares


def check_columns(table: Table, schema: Schema, ignore: tuple[str, ...], label: str | None) -> None:
    known = [schema.label, *(spec.name for spec in schema.fields)]
    if label not in (None, schema.label):
        raise DataError(f"the label is {schema.label!r} in the schema, but {label!r} was asked for")
    for name in set(ignore).difference(table.columns):
        raise DataError(f"{table.path.name} has no column {name!r} to ignore; its columns are: {names(table)}")
    for name in [name for name in known if name not in table.columns]:
        raise DataError(
            f"{table.path.name} has no column {name!r} that the schema names; its columns are: {names(table)}"
        )
    for name in table.columns:
        if name not in known and name not in ignore:
            raise DataError(
                f"{table.path.name} has a column {name!r} that the schema lacks; "
                f"add it to the fields or use --ignore {name}"
            )


def count(table: Table, schema: Schema, split: str | list[int], on_progress: Progress | None) -> Encoder:
    """The first pass: the values of the training rows."""
    builder = EncoderBuilder(schema)
    for first, frame in table.batches():
        rows = frame if isinstance(split, str) else frame.filter(pl.Series(split_of(frame, split) == 0))
        for index, spec in enumerate(schema.fields):
            count_column(builder, index, spec, table, first, frame, rows)
        report(on_progress, "count", first + frame.height)
    return builder.build()


def count_column(
    builder: EncoderBuilder,
    index: int,
    spec: FieldSpec,
    table: Table,
    first: int,
    frame: pl.DataFrame,
    rows: pl.DataFrame,
) -> None:
    if spec.kind == "numeric":
        numbers(table, first, frame, spec.name)  # every row is checked, the training rows are counted
        builder.add_numbers(index, numbers(table, first, rows, spec.name))
        return
    values = text(rows[spec.name], spec)
    if spec.kind == "multi":
        parts = values.str.split(spec.separator)
        filled = parts.list.eval(pl.element().filter(pl.element() != ""))
        builder.add_longest(index, int(filled.list.len().max() or 0))
        values = filled.explode()
    counted = values.drop_nulls().value_counts()
    builder.add_counts(index, counted[counted.columns[0]].to_list(), counted["count"].to_list())


def write(plan: list, encoder: Encoder, result: PreparedDataset, on_progress: Progress | None) -> None:
    """The second pass: encodes every row and writes it to its split.

    Everything is written in a folder inside the dataset's and moved at the end: a full disk, Ctrl-C or a bad row leaves
    the earlier dataset as it was.
    """
    is_new = not result.folder.exists()
    result.folder.mkdir(parents=True, exist_ok=True)
    with only_writer(result.folder):
        for left in result.folder.glob(".prepare-*"):  # by a process that was killed: whoever lives has the lock
            shutil.rmtree(left)
        stage = Path(tempfile.mkdtemp(prefix=".prepare-", dir=result.folder))
        try:
            write_splits(plan, encoder, result, stage, on_progress)
            replace_dataset(result.folder, stage)
        except BaseException:
            shutil.rmtree(result.folder if is_new else stage, ignore_errors=True)
            raise
        stage.rmdir()


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """A lock on the folder, which ends with the process. A file system without locks goes without."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is writing the dataset '{folder}'; wait for it to end") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(descriptor)


def replace_dataset(folder: Path, stage: Path) -> None:
    """Moves the new files over the old ones. The old schema goes first and the new one comes last, so that a mixture is
    no dataset.
    """
    (folder / "schema.json").unlink(missing_ok=True)
    new = sorted(stage.iterdir(), key=lambda path: path.name == "schema.json")
    for name in SPLITS:
        for old in folder.glob(f"{name}-*.safetensors"):
            if not (stage / old.name).exists():
                old.unlink()
    for path in new:
        path.replace(folder / path.name)


def write_splits(
    plan: list, encoder: Encoder, result: PreparedDataset, folder: Path, on_progress: Progress | None
) -> None:
    writers = {name: DatasetWriter(str(folder), encoder.schema, name) for name in SPLITS}
    done = 0
    for table, split in plan:
        for first, frame in table.batches():
            ids, dense, label = encode(encoder, table, first, frame)
            for name, chosen in rows_by_split(frame, split):
                writers[name].append(ids[chosen], dense[chosen], label=label[chosen])
                result.rows[name] = result.rows.get(name, 0) + len(label[chosen])
                result.clicks[name] = result.clicks.get(name, 0) + int(label[chosen].sum())
            done += frame.height
            report(on_progress, "encode", done)
    for name in SPLITS:
        if not result.rows.get(name):
            raise DataError(f"{plan[0][0].path.name}: the {name} split has no rows; use more rows or another --split")
    encoder.save(str(folder / "vocabulary.safetensors"))
    for writer in writers.values():
        writer.finish()
    write_schema(str(folder / "schema.json"), encoder.schema)


def rows_by_split(frame: pl.DataFrame, split: str | list[int]) -> Iterator[tuple[str, slice | np.ndarray]]:
    if isinstance(split, str):
        yield split, slice(None)
        return
    chosen = split_of(frame, split)
    for number, name in enumerate(SPLITS):
        yield name, np.flatnonzero(chosen == number)


def split_of(frame: pl.DataFrame, shares: list[int]) -> np.ndarray:
    """The split of each row, 0 to 2, by a hash of all its values: independent of order, batches and machine."""
    line = frame.select(
        pl.concat_str([as_text(frame[name]).fill_null("") for name in frame.columns], separator="\x1f").alias("line")
    )["line"]
    place = hash_strings(*buffers(line)) % np.uint64(sum(shares))
    return np.searchsorted(np.cumsum(shares), place, side="right")


def encode(
    encoder: Encoder, table: Table, first: int, frame: pl.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids [rows, S] int32, dense [rows, Q] float32, label [rows] float32."""
    return *encode_features(encoder, table, first, frame), labels(table, first, frame, encoder.schema.label)


def encode_features(encoder: Encoder, table: Table, first: int, frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """ids [rows, S] int32, dense [rows, Q] float32."""
    ids, dense = [], []
    for index, spec in enumerate(encoder.schema.fields):
        if spec.kind == "numeric":
            dense.append(encoder.encode_numeric(index, numbers(table, first, frame, spec.name)))
        elif spec.kind == "multi":
            ids.append(encoder.encode_multi(index, *buffers(text(frame[spec.name], spec))))
        else:
            ids.append(encoder.encode_categorical(index, *buffers(text(frame[spec.name], spec)))[:, None])
    rows = frame.height
    return (
        np.concatenate(ids, axis=1) if ids else np.empty((rows, 0), np.int32),
        np.stack(dense, axis=1) if dense else np.empty((rows, 0), np.float32),
    )


def as_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join("|")
    return column.cast(pl.String)


def text(column: pl.Series, spec: FieldSpec) -> pl.Series:
    if isinstance(column.dtype, pl.List):
        return column.cast(pl.List(pl.String)).list.join(spec.separator)
    return column.cast(pl.String)


def buffers(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of all values, and where each ends: what the C++ encoder reads. A missing value is empty."""
    column = column.fill_null("")
    data = np.frombuffer(column.str.join("").item().encode(), dtype=np.uint8)
    ends = column.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
    return data, np.concatenate([np.zeros(1, np.int64), ends])


def numbers(table: Table, first: int, frame: pl.DataFrame, name: str) -> np.ndarray:
    """A numeric column as float64; NaN where it is missing."""
    column = frame[name]
    if column.dtype == pl.String:
        column = column.replace("", None)
    values = column.cast(pl.Float64, strict=False)
    wrong = np.flatnonzero((column.is_not_null() & ~values.is_finite().fill_null(False)).to_numpy())
    if wrong.size:
        row = int(wrong[0])
        raise DataError(
            f"{table.place(first + row)}: field {name!r} must be a finite number, or empty where it is missing, "
            f"got {column[row]!r}"
        )
    return values.fill_null(np.nan).to_numpy()


def labels(table: Table, first: int, frame: pl.DataFrame, name: str) -> np.ndarray:
    values = frame[name].cast(pl.Float32, strict=False).fill_null(np.nan).to_numpy()
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if wrong.size:
        row = int(wrong[0])
        found = frame[name][row]
        shown = "" if found is None else found
        raise DataError(f"{table.place(first + row)}: label {name!r} must be 0 or 1, got {shown!r}")
    return values


def report(on_progress: Progress | None, stage: str, rows: int) -> None:
    if on_progress:
        on_progress(stage, rows)

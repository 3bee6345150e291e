"""Raw tables (CSV, TSV, Parquet) as streams of polars data frames.

Text columns stay text: a user id "007" is not the number 7. Every error names the file and the line.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ._core import DataError

ROWS_PER_BATCH = 200_000
BYTES_PER_CHECK = 32 << 20
# A damaged file may make polars panic, which is no Exception.
READ_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
CRITEO_COLUMNS = ["label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]


@dataclass(frozen=True)
class Table:
    """A raw table on disk: where it is and how to read it."""

    path: Path
    columns: list[str]
    separator: str | None  # None: Parquet
    has_header: bool

    def place(self, row: int) -> str:
        """Where row number `row` (from 0) stands, for error messages: "clicks.csv:1042"."""
        if self.separator is None:
            return f"{self.path.name}: row {row + 1}"
        return f"{self.path.name}:{row + 1 + self.has_header}"

    def batches(self, rows: int = ROWS_PER_BATCH) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yields (number of the first row, data frame of at most `rows` rows), in order."""
        first = 0
        try:
            for frame in self.scan().collect_batches(chunk_size=rows, maintain_order=True):
                for part in frame.iter_slices(rows):
                    if part.height:
                        yield first, part
                        first += part.height
        except READ_ERRORS as error:
            raise DataError(f"{self.path.name} cannot be read after row {first}: {first_sentence(error)}") from error

    def head(self, rows: int) -> pl.DataFrame:
        """The first rows."""
        try:
            return self.scan().head(rows).collect()
        except READ_ERRORS as error:
            raise DataError(f"{self.path.name} cannot be read: {first_sentence(error)}") from error

    def check_header(self) -> None:
        """Raises DataError where polars reads other names than the csv module: quotes or line breaks within them."""
        try:
            names = self.scan().collect_schema().names()
        except READ_ERRORS as error:
            raise DataError(f"{self.path.name} cannot be read: {first_sentence(error)}") from error
        if names != self.columns:
            raise DataError(f"{self.path.name}:1: column names must have no quotes or line breaks, got {names!r}")

    def scan(self) -> pl.LazyFrame:
        if self.separator is None:
            return pl.scan_parquet(self.path)
        return pl.scan_csv(
            self.path,
            separator=self.separator,
            has_header=self.has_header,
            new_columns=None if self.has_header else self.columns,
            infer_schema=False,
            quote_char='"',
        )


def first_sentence(error: Exception) -> str:
    """polars explains itself over several paragraphs; the first line says what is wrong."""
    return str(error).strip().splitlines()[0].rstrip(".")


def open_table(
    path: str | Path, *, separator: str | None = None, has_header: bool | None = None, check: bool = True
) -> Table:
    """Finds out how to read a table, and checks that every line of a text table has as many columns as the first.

    The separator follows from the name (.csv, .tsv, .txt; .gz may follow) unless given. A TSV whose first line starts
    with a 0 or 1 and has 40 columns is Criteo's headerless form. Raises DataError for an unknown form or a ragged line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    kind = suffixes[-1] if suffixes else ""
    if kind in {".parquet", ".pq"}:
        return Table(path, parquet_columns(path), None, True)
    if separator is None:
        separator = {".csv": ",", ".tsv": "\t", ".txt": "\t"}.get(kind)
    if separator is not None and len(separator.encode()) != 1:
        raise ValueError(f"separator must be one character, got {separator!r}")
    if separator is None:
        raise DataError(f"{path.name} must end in .csv, .tsv, .txt or .parquet, or be given a separator")
    first_line = read_first_line(path, separator)
    if has_header is None:
        has_header = not looks_like_criteo(first_line)
    columns = header_names(path, first_line, has_header)
    table = Table(path, columns, separator, has_header)
    table.check_header()
    if check:
        try:
            check_rectangular(table)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise DataError(f"{path.name} cannot be read to its end: {first_sentence(error)}") from error
    return table


def parquet_columns(path: Path) -> list[str]:
    try:
        return pl.scan_parquet(path).collect_schema().names()
    except READ_ERRORS as error:
        raise DataError(f"{path.name} is not a Parquet file: {first_sentence(error)}") from error


def open_bytes(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read_first_line(path: Path, separator: str) -> list[str]:
    try:
        with open_bytes(path) as stream, io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
            return next(csv.reader(text, delimiter=separator), [])
    except (UnicodeDecodeError, OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path.name} is not a text table: {error}") from error


def looks_like_criteo(line: list[str]) -> bool:
    return len(line) == len(CRITEO_COLUMNS) and line[0] in {"0", "1"}


def header_names(path: Path, line: list[str], has_header: bool) -> list[str]:
    if not line:
        raise DataError(f"{path.name} is empty")
    if not has_header:
        return CRITEO_COLUMNS if looks_like_criteo(line) else [f"column_{i}" for i in range(1, len(line) + 1)]
    for name in line:
        if not name or line.count(name) > 1:
            raise DataError(
                f"{path.name}:1: column names must be unique and not empty, got {name!r}; is the first line a row?"
            )
    return line


def check_rectangular(table: Table) -> None:
    """Raises DataError for a line that has not as many columns as the table: polars would fill it up in silence."""
    expected = len(table.columns)
    with open_bytes(table.path) as stream:
        line, rest = 1, b""
        while chunk := stream.read(BYTES_PER_CHECK):
            data = rest + chunk
            if b'"' in data:  # quoted fields may hold separators: leave them to the csv module
                check_quoted(table, line, data, stream)
                return
            end = data.rfind(b"\n") + 1
            line += check_plain(table, expected, line, data[:end])
            rest = data[end:]
        check_plain(table, expected, line, rest + b"\n" if rest else b"")


def check_plain(table: Table, expected: int, first_line: int, data: bytes) -> int:
    """Checks whole lines without quotes; returns how many there were."""
    if not data:
        return 0
    values = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(values == ord("\n"))
    separators = np.flatnonzero(values == ord(table.separator))
    counts = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    wrong = np.flatnonzero(counts != expected)
    if wrong.size:
        refuse_ragged(table, first_line + int(wrong[0]), int(counts[wrong[0]]))
    return len(ends)


def check_quoted(table: Table, first_line: int, data: bytes, stream: io.BufferedIOBase) -> None:
    text = io.TextIOWrapper(
        io.BufferedReader(Chained(data, stream)), encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    reader = csv.reader(text, delimiter=table.separator)
    before = 0
    for row in reader:
        if len(row) != len(table.columns):
            refuse_ragged(table, first_line + before, len(row))
        before = reader.line_num


def refuse_ragged(table: Table, line: int, found: int) -> None:
    raise DataError(f"{table.path.name}:{line}: {found} columns, expected {len(table.columns)}")


class Chained(io.RawIOBase):
    """Bytes already read, then the rest of a stream."""

    def __init__(self, head: bytes, stream: io.BufferedIOBase) -> None:
        self._head, self._stream = io.BytesIO(head), stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._head.read(len(buffer)) or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

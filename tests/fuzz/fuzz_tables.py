"""Damaged raw tables (CSV, TSV, gzip, Parquet) through `prepare`: refused by an error of libafm with one sentence, or a
dataset that opens.

    python tests/fuzz/fuzz_tables.py [--seconds 600] [--seed 1] [--keep FOLDER]

A table that is answered otherwise (another exception, a panic of the reader, a dataset that does not open) is copied to
FOLDER and ends the run.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import afm
import polars as pl
from afm.prepare import prepare

VALUES = ["", " ", "0", "1", "-1", "2.5", "1e400", "nan", "inf", "NULL", "é", "\x00", '"', '""', "\r", "a|b||c", "007"]
TOKENS = [
    b",",
    b"\t",
    b"\n",
    b"\r\n",
    b'"',
    b'"\n"',
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"|",
    b"1e999",
    b"-nan",
    b"9" * 40,
]


def frame(random_: random.Random) -> pl.DataFrame:
    """A small table with a label, a text, a number and lists of texts."""
    rows = random_.randint(1, 60)
    return pl.DataFrame(
        {
            "label": [str(random_.randint(0, 1)) for _ in range(rows)],
            "user": [random_.choice([*VALUES, "u1", "u2", "u3"]) for _ in range(rows)],
            "age": [str(random_.choice([18, 2.5, -3, ""])) for _ in range(rows)],
            "genres": [
                "|".join(random_.choices(["drama", "noir", "", "a b"], k=random_.randint(0, 4))) for _ in range(rows)
            ],
        }
    )


def odd_columns(table: pl.DataFrame, random_: random.Random) -> pl.DataFrame:
    """The table with columns of the types that Parquet has beside text."""
    label, age = pl.col("label").cast(pl.Int8), pl.col("age").cast(pl.Float32, strict=False)
    choices = [
        label.cast(pl.Boolean),
        label.cast(pl.Float64).alias("label"),
        age,
        age.cast(pl.Decimal(10, 2), strict=False),
        pl.col("user").cast(pl.Categorical),
        pl.col("user").cast(pl.Binary),
        pl.struct("user", "age").alias("user"),
        pl.lit(None).alias("user"),
        label.cast(pl.Datetime).alias("age"),
        pl.col("genres").str.split("|"),
        pl.concat_list(pl.struct("user", "genres")).alias("genres"),
    ]
    return table.with_columns(random_.choice(choices))


def seed_bytes(kind: str, random_: random.Random) -> bytes:
    table, stream = frame(random_), io.BytesIO()
    if kind == ".parquet":
        odd_columns(table, random_).write_parquet(
            stream, compression=random_.choice(["zstd", "snappy", "uncompressed"])
        )
    else:
        table.write_csv(stream, separator="\t" if kind == ".tsv" else ",")
    return gzip.compress(stream.getvalue(), 1) if kind.endswith(".gz") else stream.getvalue()


def mutated(data: bytes, random_: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random_.choice([0, 1, 1, 2, 4, 16])):
        place = random_.randrange(len(changed) + 1)
        end = min(len(changed), place + random_.choice([1, 1, 4, 64]))
        match random_.randrange(6):
            case 0:
                changed[place:place] = random_.choice(TOKENS)
            case 1:
                del changed[place:end]
            case 2:
                changed[place:place] = changed[place:end]
            case 3:
                changed[place:end] = random_.randbytes(end - place)
            case 4:
                changed[place:end] = random_.choice(TOKENS)
            case 5:
                del changed[place:]
        if not changed:
            break
    return bytes(changed)


def make_table(kind: str, random_: random.Random) -> bytes:
    """Bytes for a file of that kind. Text within gzip is damaged before or after it is packed."""
    if kind.endswith(".gz") and random_.random() < 0.5:
        return gzip.compress(mutated(gzip.decompress(seed_bytes(kind, random_)), random_), 1)
    return mutated(seed_bytes(kind, random_), random_)


def try_table(path: Path, folder: Path) -> bool:
    """Whether the table became a dataset. Raises what is no answer of libafm."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        prepare(path, folder)
    except (afm.DataError, ValueError) as error:
        if not str(error).strip() or "\n" in str(error).strip():
            raise AssertionError(f"no sentence: {error!r}") from error
        return False
    for split in ("train", "valid", "test"):
        afm.Dataset.open(str(folder), split)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("."))
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    tried = prepared = 0
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as work:
        while time.monotonic() < end:
            kind = random_.choice([".csv", ".csv", ".tsv", ".csv.gz", ".parquet"])
            path = Path(work) / f"table{kind}"
            path.write_bytes(make_table(kind, random_))
            try:
                prepared += try_table(path, Path(work) / "dataset")
            except KeyboardInterrupt:
                raise
            except BaseException:  # a panic of polars is no Exception
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, options.keep)
                print(f"fuzz_tables: {options.keep / path.name} after {tried} others", file=sys.stderr)
                raise
            tried += 1
    print(f"fuzz_tables: {tried} tables, {prepared} became datasets, the others were refused by name")


if __name__ == "__main__":
    main()

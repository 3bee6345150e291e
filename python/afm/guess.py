"""Guesses a schema from the first rows of a table. A guess is written and shown, so that a person can correct it."""

from __future__ import annotations

import polars as pl

from ._core import DataError, FieldSpec, Schema
from .tables import CRITEO_COLUMNS, Table

ROWS_TO_LOOK_AT = 10_000
LABEL_NAMES = ("label", "click", "clicked", "is_click", "target", "y", "ctr", "conversion")
MULTI_SEPARATOR = "|"
SHARE_OF_LISTS = 0.05  # a text column with at least so many values that hold the separator is multi-valued


def guess_schema(table: Table, *, label: str | None = None, ignore: tuple[str, ...] = ()) -> Schema:
    """A field for every column but the label and the ignored ones.

    Numbers with a fraction, and Criteo's I1 to I13, are numeric; columns whose values hold "|" are multi-valued; the
    rest, whole numbers included (they are ids more often than amounts), is categorical.
    """
    frame = table.head(ROWS_TO_LOOK_AT)
    if frame.height == 0:
        raise DataError(f"{table.path.name} has no rows")
    label = label or guess_label(table, frame)
    if label not in table.columns:
        raise DataError(f"{table.path.name} has no column {label!r} for the label; its columns are: {names(table)}")
    if label in ignore:
        raise DataError(f"column {label!r} of {table.path.name} is the label and cannot be ignored; name another label")
    is_criteo = table.columns == CRITEO_COLUMNS
    fields = [
        FieldSpec(name=column, kind="numeric" if is_criteo and column[0] == "I" else guess_kind(frame[column]))
        for column in table.columns
        if column != label and column not in ignore
    ]
    return Schema(label=label, fields=fields)


def names(table: Table) -> str:
    return ", ".join(table.columns)


def guess_label(table: Table, frame: pl.DataFrame) -> str:
    by_name = {column.lower(): column for column in table.columns}
    for name in LABEL_NAMES:
        if name in by_name:
            return by_name[name]
    for column in table.columns:
        if set(frame[column].cast(pl.String).unique().to_list()) == {"0", "1"}:
            return column
    raise DataError(
        f"{table.path.name} has no column that looks like a label (0 and 1); name it with --label, or the separator "
        f"with --separator; its columns are: {names(table)}"
    )


def guess_kind(column: pl.Series) -> str:
    if column.dtype.is_float():
        return "numeric"
    if isinstance(column.dtype, pl.List):
        return "multi"
    if not isinstance(column.dtype, pl.String):
        return "categorical"
    values = column.drop_nulls()
    values = values.filter(values != "")
    if values.len() == 0:
        return "categorical"
    if values.str.contains(MULTI_SEPARATOR, literal=True).mean() >= SHARE_OF_LISTS:
        return "multi"
    numbers = values.cast(pl.Float64, strict=False)
    has_fraction = values.str.contains(r"[.eE]").any()
    return "numeric" if numbers.null_count() == 0 and has_fraction else "categorical"

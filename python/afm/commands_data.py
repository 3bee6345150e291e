"""`afm prepare` and `afm synth`: from raw tables to dataset folders."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from . import prepare as preparing
from . import synth as synthesis
from ._core import read_schema, schema_to_json
from .console import out, print_json, print_table, rows_bar, say

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def prepare(
    source: Annotated[Path, typer.Argument(help="CSV, TSV (Criteo's headerless form too) or Parquet; .gz is fine.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Dataset folder to write.")],
    schema: Annotated[
        Path | None, typer.Option(help="Schema file; without one it is guessed, written to the folder and shown.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Shares of train:valid:test; a row's split is a hash of the row.")
    ] = "8:1:1",
    valid: Annotated[
        Path | None, typer.Option(help="File with the validation rows (with --test; SOURCE is train).")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="File with the test rows.")] = None,
    label: Annotated[str | None, typer.Option(help="Label column (0 or 1), where the schema is guessed.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Column to leave out; may repeat.")] = None,
    separator: Annotated[
        str | None, typer.Option(help="Column separator of a text table (\\t for a tab), where its name does not tell.")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line names the columns. Without this: yes, but in Criteo's headerless form.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Turn a table of clicks into a dataset folder.

    The folder holds schema.json, the vocabulary, and the encoded rows of train, valid and test. Values are counted on
    the training rows alone; rare and unseen ones become the unknown value 0. An empty number is missing; an empty
    category is unknown.

    The schema says what each column is: categorical, numeric, or multi (several values in one, as in "Drama|War"):

    \b
      {"label": "click",
       "fields": [{"name": "user", "kind": "categorical"},
                  {"name": "price", "kind": "numeric"},
                  {"name": "genres", "kind": "multi"}]}

    \b
    Examples:
      afm prepare clicks.csv --out clicks
      afm prepare train.tsv --valid valid.tsv --test test.tsv --out clicks
    """
    if output.exists() and not output.is_dir():
        raise ValueError(f"--out must be a folder, got the file '{output}'")
    bars = {"count": "counting values", "encode": "encoding rows"}
    with rows_bar(bars["count"]) as counting, rows_bar(bars["encode"]) as encoding:
        done = preparing.prepare(
            source,
            output,
            schema=read_schema(str(schema)) if schema else None,
            split=split,
            valid=valid,
            test=test,
            label=label,
            ignore=tuple(ignore or ()),
            separator={"\\t": "\t"}.get(separator, separator),
            has_header=header,
            on_progress=lambda stage, rows: (counting if stage == "count" else encoding)(rows),
        )
    if json:
        print_json({"folder": str(done.folder), "rows": done.rows, "clicks": done.clicks, "guessed": done.guessed})
        return
    if done.guessed:
        say(f"schema guessed and written to {done.folder / 'schema.json'}; edit it and pass --schema to change it:")
        say(schema_to_json(done.schema))
    rows = [[name, f"{done.rows[name]:,}", f"{done.clicks[name] / done.rows[name]:.4f}"] for name in preparing.SPLITS]
    print_table(str(done.folder), ["split", "rows", "click rate"], rows)


def synth(
    output: Annotated[
        Path, typer.Argument(help="Table to write: .csv with a header, or .tsv in Criteo's headerless form.")
    ],
    rows: Annotated[int, typer.Option(min=1, metavar="<int>", help="Rows to write.")] = 200_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same table.")] = 1,
    max_cardinality: Annotated[
        int, typer.Option(min=10, metavar="<int>", help="Values of the largest categorical field.")
    ] = 200_000,
    json: Json = False,
) -> None:
    """Generate a Criteo-like table whose best AUC is known.

    26 categorical fields from 10 to --max-cardinality values with power-law frequencies, and 13 numeric ones. Clicks
    are drawn from a planted teacher; the AUC and logloss of its own probabilities, which no model can beat, are printed
    and written beside the table (clicks.csv: clicks.csv.teacher.json).

    \b
    Example:
      afm synth clicks.csv --rows 200000 && afm prepare clicks.csv --out clicks
    """
    with rows_bar("generating") as advance:
        report = synthesis.synth(output, rows=rows, seed=seed, max_cardinality=max_cardinality, on_progress=advance)
    if json:
        print_json(asdict(report))
        return
    out.print(
        f"{report.path}: {report.rows:,} rows, click rate {report.click_rate:.4f}; no model can beat AUC "
        f"{report.bayes_auc:.4f}, logloss {report.bayes_logloss:.4f}",
        markup=False,
        soft_wrap=True,
    )

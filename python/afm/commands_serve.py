"""afm pack, score and export: models for servers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from . import exporting, scoring, serving
from ._core import DataError
from .commands_models import check_output
from .console import out
from .tables import open_table
from .text_files import whole_text_file

ModelFile = Annotated[Path, typer.Argument(help="Model file.")]


def export(
    model: ModelFile,
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE", help="ONNX file to write, for ONNX Runtime.")
    ] = None,
    torchscript: Annotated[
        Path | None, typer.Option("--torchscript", metavar="FILE", help="TorchScript file to write, for LibTorch.")
    ] = None,
) -> None:
    """Write a model for another runtime.

    Inputs are ids (int32, one column per slot) and, where the model has them, dense features; the output is the logit.
    The batch may have any size. Ids are those of the dataset folder's vocabulary; they are not checked.

    \b
    Example:
      afm export small.safetensors --onnx small.onnx
    """
    if onnx is None and torchscript is None:
        raise ValueError("give --onnx FILE, --torchscript FILE or both")
    writers = (("--onnx", onnx, exporting.export_onnx), ("--torchscript", torchscript, exporting.export_torchscript))
    for option, path, write in writers:
        if path is None:
            continue
        check_output(path, option)
        write(model, path)
        out.print(f"{path}: {path.stat().st_size:,} bytes", markup=False, soft_wrap=True)


def pack(
    model: ModelFile,
    folder: Annotated[Path, typer.Argument(help="Dataset folder that it was trained on.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Model file to write; may be the model itself.")],
) -> None:
    """Put the encoder of a dataset folder into a model file.

    A packed file scores raw values by itself: afm score, afm.Scorer, afm::serve::Scorer.

    \b
    Example:
      afm pack small.safetensors clicks --out packed.safetensors
    """
    check_output(output)
    serving.pack(model, folder, output)
    out.print(f"{output}: {output.stat().st_size:,} bytes", markup=False, soft_wrap=True)


def score(
    model: ModelFile,
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV, TSV, Parquet, or JSON lines (.jsonl); - = JSON lines on stdin.")
    ],
    dataset: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Dataset folder with the encoder, for a file without it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write instead of standard output.")
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Between columns of a text table.")] = None,
) -> None:
    """Print the probability of a click for raw rows.

    One line per row. Rows are read and scored as they come. The model file must be packed (afm pack), or --dataset must
    say where its encoder is. Columns of a table that the model does not read are left alone; a JSON object may leave
    fields out, and may name no others.

    \b
    Example:
      afm score packed.safetensors new.csv --out new.scores
      tail -f requests.jsonl | afm score packed.safetensors -
    """
    with scoring.packed(model, dataset) as path, lines_to(output) as file:
        scorer = serving.Scorer(path)
        if not scorer.is_packed:
            raise DataError(f"{model} holds no encoder; give --dataset FOLDER, or pack it first (afm pack)")
        if table == "-" or Path(table).suffix in scoring.JSON_LINES:
            with json_lines(table) as lines:
                for probability in scoring.score_lines(lines, "stdin" if table == "-" else Path(table).name, scorer):
                    print(f"{probability:.7g}", file=file, flush=table == "-")
            return
        for probabilities in scoring.score_table(path, open_table(table, separator=separator), scorer):
            file.write("".join(f"{probability:.7g}\n" for probability in probabilities.tolist()))


@contextlib.contextmanager
def json_lines(table: str) -> Iterator[TextIO]:
    if table == "-":
        yield sys.stdin
        return
    with Path(table).open(encoding="utf-8") as file:
        yield file


@contextlib.contextmanager
def lines_to(output: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is whole or absent."""
    if output is None:
        yield sys.stdout
        return
    check_output(output)
    with whole_text_file(output) as file:
        yield file

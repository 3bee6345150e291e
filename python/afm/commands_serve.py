"""afm export: models for servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import exporting
from .console import out

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
    for path, write in ((onnx, exporting.export_onnx), (torchscript, exporting.export_torchscript)):
        if path is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write(model, path)
        out.print(f"{path}: {path.stat().st_size:,} bytes", markup=False, soft_wrap=True)

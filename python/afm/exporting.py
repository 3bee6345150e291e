"""Model files for other runtimes: ONNX, and TorchScript for servers that run LibTorch."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

import torch

from afm.models import Model
from afm.portable import portable


def export_onnx(model: Model | str | PathLike[str], path: str | PathLike[str]) -> None:
    """Writes an ONNX file: inputs "ids" int32 [batch, S] and, with dense features, "dense" float32 [batch, Q]; output
    "logit" [batch]. The batch may have any size. Integers of the model file stay int8.

    Ids are not checked: they must be in range, an empty slot of a multi-valued field being -1.

    Raises:
        ImportError: without the packages onnx and onnxscript.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX needs the packages {', '.join(missing)}: pip install {' '.join(missing)}")
    plain = portable(model, integer_layers=True)
    inputs = plain.example()
    batch = torch.export.Dim("batch")
    with _quiet():
        program = torch.onnx.export(
            plain,
            inputs,
            dynamo=True,
            input_names=["ids", "dense"][: len(inputs)],
            output_names=["logit"],
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            verbose=False,
        )
    for node in program.model.graph:  # the exporter notes a stack trace at every node
        node.metadata_props.clear()
    _write_whole(path, lambda temporary: program.save(temporary, external_data=False))


def export_torchscript(model: Model | str | PathLike[str], path: str | PathLike[str]) -> None:
    """Writes a TorchScript file for torch::jit::load: forward(ids [B, S], dense [B, Q]) -> logits [B]; without dense
    features forward(ids). Ids are int32 or int64. Integer tables stay int8, linear layers are floats.

    Ids are not checked: they must be in range, an empty slot of a multi-valued field being -1.
    """
    plain = portable(model)
    with torch.no_grad(), _quiet():
        script = torch.jit.freeze(torch.jit.trace(plain, plain.example()))
    _write_whole(path, lambda temporary: script.save(temporary))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself and about packages that it does not need."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _write_whole(path: str | PathLike[str], write: Callable[[str], None]) -> None:
    """A temporary file beside `path`, renamed when it is whole."""
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        write(str(temporary))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)

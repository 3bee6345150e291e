"""The files that libafm writes: safetensors, each stating its kind in the metadata."""

import json
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from afm import _core


def _parsed(text: str) -> Any:
    """The value of metadata that holds a JSON object; other text as it is."""
    try:
        return json.loads(text) if text.startswith("{") else text
    except json.JSONDecodeError:
        return text


def save_tensors(
    path: str | PathLike[str], tensors: Mapping[str, torch.Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file with a checksum: whole or not at all.

    Args:
        path: the file; its folder must exist.
        tensors: of any device; they are written contiguous.
        metadata: text by key.
    """
    _core.save_tensors(path, dict(metadata or {}), dict(tensors))


def inspect(path: str | PathLike[str], *, verify: bool = True) -> dict[str, Any]:
    """What a safetensors file holds, without reading its tensors into memory.

    Args:
        path: any safetensors file, of libafm or not.
        verify: check the data against the checksum, where the file has one.

    Returns:
        kind ("afm-model", "afm-shard", ...; None for a foreign file), metadata (values that hold JSON are parsed), and
        tensors: name -> {"dtype": "F32", "shape": [400, 10]}.

    Raises:
        FormatError: for a damaged file.
    """
    file = _core.SafetensorsFile.open(path)
    if verify and file.has_checksum:
        file.verify()
    metadata = {key: _parsed(text) for key, text in file.metadata.items()}
    tensors = {name: {"dtype": file.dtype(name), "shape": file.shape(name)} for name in file.names()}
    return {"kind": metadata.get("kind"), "metadata": metadata, "tensors": tensors}

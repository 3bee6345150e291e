"""Loads torch, and refuses one that the extension was not compiled against: LibTorch has no stable C++ interface."""

import torch

from afm._build_info import TORCH_VERSION


def _release(version: str) -> str:
    return version.partition("+")[0]


def check(found: str, built: str = TORCH_VERSION) -> None:
    """Raises ImportError unless both are the same release."""
    if _release(found) == _release(built):
        return
    raise ImportError(
        f"this libafm was built against torch {_release(built)}, but torch {_release(found)} is installed; "
        f"either `pip install torch=={_release(built)}`, or build libafm against yours, in its source folder: "
        "`pip install --no-build-isolation .`"
    )


check(torch.__version__)

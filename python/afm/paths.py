"""Where C++ projects find what the Python package brings along."""

from pathlib import Path

from afm._build_info import SOURCE_DIR
from afm.errors import Error

_PACKAGE = Path(__file__).parent


def get_include() -> str:
    """The folder for a compiler's include path: `#include "libafm/afm.h"` then works."""
    installed = _PACKAGE / "include" / "afm"
    return str(installed if installed.is_dir() else Path(SOURCE_DIR))


def get_cmake_prefix_path() -> str:
    """The folder for CMAKE_PREFIX_PATH: `find_package(afm CONFIG)` then works."""
    if not (_PACKAGE / "include" / "afm").is_dir():
        raise Error(
            "this afm runs from a build folder, which is no CMake package; run `cmake --install` or `pip install`"
        )
    return str(_PACKAGE)

"""Walks the #include lines of the library and fails on an arrow that ARCHITECTURE.md does not have.

python tests/architecture/includes.py [ROOT]
"""

import re
import sys
from pathlib import Path

# room -> rooms it may include. Nothing runs back up.
ALLOWED = {
    "core": set(),
    "linalg": {"core"},
    "data": {"core"},
    "nn": {"core", "data", "linalg", "cuda"},
    "metrics": {"core", "data", "nn"},
    "train": {"core", "data", "nn", "metrics", "cuda"},
    "compress": {"core", "data", "nn", "linalg", "metrics"},
    "serve": {"core", "data", "nn"},  # of data and nn what is in SERVE_READS alone
    "cuda": {"core", "train"},  # of train what is in CUDA_READS alone
    "models": {"core", "data", "nn"},
}
# What serve may know of data and nn, whose files it compiles without LibTorch.
SERVE_READS = {"libafm/data/schema.h", "libafm/data/transform.h", "libafm/nn/rank_plan.h"}
# The arithmetic that a kernel shares with the CPU.
CUDA_READS = {"libafm/train/missed_steps.h"}
# What public headers must not show: these stay in .cpp files and private headers.
PRIVATE_LIBRARIES = ("Eigen/", "fmt/", "nlohmann/", "xxhash.h")
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.MULTILINE)


def room_of(path: str) -> str | None:
    parts = path.split("/")
    if parts[0] == "libafm" and len(parts) > 2:
        return parts[1]
    return "models" if parts[0] == "models" else None


def public_headers(root: Path) -> set[str]:
    """The headers that the CMake file sets install."""
    found = set()
    for folder in ("libafm", "libafm/serve", "models"):
        text = (root / folder / "CMakeLists.txt").read_text()
        for block in re.findall(r"FILE_SET HEADERS.*?\)", text, re.DOTALL):
            found |= {f"{folder}/{name}" for name in re.findall(r"[\w/]+\.h\b", block)}
    return found


def wrong_arrows(root: Path) -> list[str]:
    public = public_headers(root)
    wrong = []
    sources = [
        p
        for folder in ("libafm", "models")
        for p in (root / folder).rglob("*")
        if p.suffix in {".h", ".cpp", ".inl", ".cu", ".cuh"}
    ]
    for source in sorted(sources):
        name = source.relative_to(root).as_posix()
        here = room_of(name)
        for include in INCLUDE.findall(source.read_text()):
            there = room_of(include)
            if here and there and here != there and there not in ALLOWED.get(here, set()):
                wrong.append(f"{name} includes {include}: {here} must not know {there}")
            if here == "serve" and there in {"data", "nn"} and include not in SERVE_READS:
                wrong.append(f"{name} includes {include}: serve knows of {there} only what needs no LibTorch")
            if here == "cuda" and there == "train" and include not in CUDA_READS:
                wrong.append(f"{name} includes {include}: cuda knows of train only what needs no LibTorch")
            if name in public and include.startswith(PRIVATE_LIBRARIES):
                wrong.append(f"{name} is public and includes {include}")
            if name in public and there and include not in public:
                wrong.append(f"{name} is public and includes {include}, which is not installed")
    return wrong


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    wrong = wrong_arrows(root)
    print("\n".join(wrong) if wrong else "every include follows the picture in ARCHITECTURE.md")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

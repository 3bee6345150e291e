"""Makes the virtual environment of a peer in the build folder: its pinned packages, and our torch.

    python environments.py BUILD [PEER ...]

The versions that the peers need conflict with each other and with ours, so each gets an environment of its own, from
requirements/PEER.txt, without further dependencies: nothing may install another torch. Whatever else it needs (torch,
numpy, pytest) it finds in the site-packages of the Python that runs this file, which come last in its path. An
environment is made once and kept for as long as its requirements stay the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = sorted(path.stem for path in (HERE / "requirements").glob("*.txt"))
STAMP = "afm-requirements"


def environment(build: Path, peer: str) -> Path:
    """The Python of a peer's environment, which is made where it is missing or of other requirements."""
    requirements = HERE / "requirements" / f"{peer}.txt"
    folder = build / "peers" / peer
    python = folder / "bin" / "python"
    wanted = "\n".join([sys.version, *_our_packages(), requirements.read_text()])
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    start = time.monotonic()
    print(f"[peers] making the environment of {peer}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True)
    _install(folder, python, requirements)
    _packages_of(folder, "zz_afm.pth").write_text("\n".join(_our_packages()) + "\n")
    _add_stand_ins(folder, peer)
    stamp.write_text(wanted)
    print(f"[peers] {peer} is ready after {time.monotonic() - start:.0f} s", flush=True)
    return python


def _our_packages() -> list[str]:
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def _packages_of(folder: Path, name: str) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(folder)})) / name


def _install(folder: Path, python: Path, requirements: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--no-deps", "-r", str(requirements)], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        shutil.rmtree(folder)
        raise SystemExit(f"[peers] the packages of {requirements.name} could not be installed:\n{done.stderr}")


def _add_stand_ins(folder: Path, peer: str) -> None:
    """Packages that a peer imports and that its tabular models never use."""
    source = HERE / "stand_ins" / peer
    if source.is_dir():
        shutil.copytree(source, _packages_of(folder, ""), dirs_exist_ok=True)


if __name__ == "__main__":
    for name in sys.argv[2:] or PEERS:
        environment(Path(sys.argv[1]), name)

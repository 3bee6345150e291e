"""A folder to run the command line in."""

import json
from pathlib import Path

import pytest
from afm.cli import run

TINY = ["--set", "embedding_dim=4", "--set", "hidden=16,8", "--set", "batch_size=100"]


class Home:
    """A folder with a dataset `clicks` and a model `base.safetensors`; runs commands in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture):
        self.folder, self.capsys = folder, capsys

    def path(self, name: str) -> Path:
        return self.folder / name

    def run(self, line: str, code: int = 0) -> tuple[str, str]:
        """Standard output and error of `afm LINE`, whose exit code must be `code`."""
        self.capsys.readouterr()
        found = run(line.split())
        printed = self.capsys.readouterr()
        assert found == code, printed.err
        return printed.out, printed.err

    def json(self, line: str) -> dict:
        return json.loads(self.run(f"{line} --json")[0])

    def complaint(self, line: str, code: int = 2) -> str:
        """The one sentence on standard error; nothing is on standard output, and no file has changed."""
        before = files_below(self.folder)
        out, err = self.run(line, code)
        assert out == ""
        last = err.splitlines()[-1]
        assert last.startswith("afm: ") and "Traceback" not in err
        assert files_below(self.folder) == before
        return last


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Processes that run one command of `afm` each and may be killed at any moment, without imports for each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import afm

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(afm.__file__).parents[1]), str(Path(__file__).parent)]),
    "OMP_NUM_THREADS": "1",  # a process with threads must not fork
}


class Nursery:
    """A process with everything imported that forks a child for each command; use it as a context."""

    def __enter__(self) -> Nursery:
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *unused) -> None:
        self.process.stdin.close()
        self.process.wait()

    def start(self, line: str, folder: Path) -> Child:
        return Child(self, self.ask({"run": line.split(), "folder": str(folder)}), folder)

    def ask(self, question: dict) -> int:
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def run(self, line: str, folder: Path) -> float:
        """Runs a command to its end; returns its seconds."""
        begin = time.monotonic()
        child = self.start(line, folder)
        assert child.wait() == 0, child.told()
        return time.monotonic() - begin


class Child:
    """One command under way. The nursery reaps it, so its number is its own until wait() has returned."""

    def __init__(self, nursery: Nursery, pid: int, folder: Path):
        self.nursery, self.pid, self.folder = nursery, pid, folder
        self.code: int | None = None

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL after a while; whether it hit, rather than came after the end."""
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)
        code = self.wait()
        assert code in (0, -signal.SIGKILL), self.told()
        return code != 0

    def wait(self) -> int:
        """The exit code, or minus the signal."""
        if self.code is None:
            self.code = self.nursery.ask({"reap": self.pid})
        return self.code

    def told(self) -> str:
        return (self.folder / f"{self.pid}.stderr").read_text()


def run_child(arguments: list[str], folder: str) -> None:
    os.chdir(folder)
    os.environ["TMPDIR"] = folder  # what a killed process leaves there goes with the test
    stream = os.open(f"{os.getpid()}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    code = 1
    try:
        from afm.cli import run

        code = run(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    import afm.cli  # noqa: F401  before any fork

    for line in sys.stdin:
        question = json.loads(line)
        if "reap" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                run_child(question["run"], question["folder"])
        print(answer, flush=True)


if __name__ == "__main__":
    serve()

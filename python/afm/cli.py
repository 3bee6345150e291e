"""The command line: `afm prepare | train | compress | evaluate | inspect | pack | score | export | ...`.

Exit codes: 0 done; 2 something in the input must change (one sentence says what); 1 the machine refused (no space, no
permission) or libafm has a bug.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

import typer

from . import __version__, commands_data, commands_models, commands_report, commands_serve, quickstart
from ._core import DataError, Error, FormatError
from .console import Interrupted, err

INTERRUPTED = 130  # what typer makes of Ctrl-C
USERS_FAULT = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)  # a path that a person mistyped

app = typer.Typer(
    help="Trains click-through-rate models and makes them many times smaller and faster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="A first look: afm quickstart. Each command has --help.",
)
for command in (
    commands_data.prepare,
    commands_models.train,
    commands_models.compress,
    commands_models.evaluate,
    commands_models.inspect,
    commands_serve.pack,
    commands_serve.score,
    commands_serve.export,
    commands_report.report,
    commands_data.synth,
    quickstart.quickstart,
):
    app.command()(command)


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        print(f"afm {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of `afm` and `python -m afm`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command; returns the exit code. Prints one sentence for what a person can mend."""
    try:
        code = app(arguments, standalone_mode=False) or 0
        return complain("interrupted; files written before are whole", 2) if code == INTERRUPTED else code
    except typer.TyperException as error:
        usage = error.format_message()
        return show_usage(usage) if usage.startswith("Usage:") else complain(usage, 2)
    except Interrupted as error:
        return complain(f"interrupted; {error}", 2)
    except OSError as error:  # IoError of libafm too
        return complain(sentence_of(error), 2 if is_users_fault(error) else 1)
    except (ValueError, DataError, FormatError) as error:
        return complain(str(error), 2)
    except (Error, MemoryError) as error:
        return complain(str(error) or "out of memory", 1)
    except Exception:
        return crash()


def sentence_of(error: OSError) -> str:
    """Python's own errors without their "[Errno 2]"; those of libafm are sentences already."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def is_users_fault(error: OSError) -> bool:
    """A wrong path, not a full disk: errors of C++ carry no number, but end with the system's words for it."""
    if error.errno is not None:
        return error.errno in USERS_FAULT
    return str(error).endswith(tuple(os.strerror(number) for number in USERS_FAULT))


def complain(sentence: str, code: int) -> int:
    err.print(f"afm: {sentence}", markup=False, soft_wrap=True)
    return code


def show_usage(text: str) -> int:
    err.print(text, markup=False, soft_wrap=True)
    return 2


def crash() -> int:
    traceback.print_exc()
    return complain("this is a bug in libafm; please report it with the lines above", 1)

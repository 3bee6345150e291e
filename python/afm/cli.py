"""The command line: `afm prepare | train | compress | evaluate | inspect | synth | quickstart`.

Exit codes: 0 done; 2 something in the input must change (one sentence says what); 1 the machine refused (no space, no
permission) or libafm has a bug.
"""

from __future__ import annotations

import sys
import traceback

import typer

from . import __version__, commands_data, commands_models, quickstart
from ._core import DataError, Error, FormatError, IoError
from .console import err

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
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        usage = error.format_message()
        return show_usage(usage) if usage.startswith("Usage:") else complain(usage, 2)
    except (KeyboardInterrupt, typer.Abort) as error:
        hint = getattr(error, "hint", None) or "files written before are whole"
        return complain(f"interrupted; {hint}", 2)
    except IoError as error:  # before Error: not the user's fault
        return complain(str(error), 1)
    except (
        ValueError,
        TypeError,
        DataError,
        FormatError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
    ) as error:
        if not isinstance(error, (Error, ValueError, OSError)) and not is_ours(error):
            return crash()
        return complain(str(error), 2)
    except (OSError, Error, MemoryError) as error:
        return complain(str(error) or "out of memory", 1)
    except Exception:
        return crash()


def is_ours(error: Exception) -> bool:
    """A TypeError from the options of a model or of training, not from a bug."""
    return " has no field " in str(error) or " must be " in str(error)


def complain(sentence: str, code: int) -> int:
    err.print(f"afm: {sentence}", markup=False, soft_wrap=True)
    return code


def show_usage(text: str) -> int:
    err.print(text, markup=False, soft_wrap=True)
    return 2


def crash() -> int:
    traceback.print_exc()
    return complain("this is a bug in libafm; please report it with the lines above", 1)

"""How the command line speaks: progress bars on a terminal and none in a pipe, tables for people, JSON for machines."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

AS_IT_STANDS = {"highlight": False, "markup": False, "emoji": False}  # ":b:" and "[user]" are names, not commands
out = Console(**AS_IT_STANDS)
err = Console(stderr=True, **AS_IT_STANDS)


class Interrupted(Exception):
    """Ctrl-C, and what can be done next."""


def say(text: str) -> None:
    """A line of progress: on standard error, so that standard output holds results only."""
    err.print(text, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(
    title: str, columns: list[str], rows: list[list[str]], highlight: int | None = None, wrap: bool = False
) -> None:
    """The first column is text, the others are numbers; with `wrap`, lists that may be longer than a line."""
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or wrap else "right", no_wrap=not wrap)
    for index, row in enumerate(rows):
        table.add_row(*row, style="bold green" if index == highlight else None)
    wide = out if out.is_terminal else Console(width=160, file=sys.stdout, **AS_IT_STANDS)
    wide.print(table)


@contextmanager
def rows_bar(what: str) -> Iterator[Callable[[int], None]]:
    """A running count of rows where the total is not known."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda rows: progress.update(task, completed=rows)


def say_epoch(what: str, done) -> None:
    say(
        f"{what}: epoch {done.epoch:>2}  loss {done.train_loss:.4f}  valid AUC {done.valid_auc:.4f}"
        f"  logloss {done.valid_logloss:.4f}  {done.rows_per_second:,.0f} rows/s"
    )


@contextmanager
def training_bar(what: str) -> Iterator[Callable[[object], None]]:
    """Follows train(): a bar per epoch on a terminal, one line per finished epoch everywhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} rows/s"),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None, loss=0.0, rate=0.0)

        def on_progress(state) -> None:
            done = state.finished
            if done is not None:
                say_epoch(what, done)
                return
            progress.update(
                task,
                description=f"{what}: epoch {state.epoch}/{state.epochs}",
                completed=state.batch,
                total=state.batches,
                loss=state.loss,
                rate=state.rows_per_second,
            )

        yield on_progress


def machine() -> str:
    """One line about where figures were measured."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            name = next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"

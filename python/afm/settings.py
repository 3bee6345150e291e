"""`--set name=value`: every model and training option by its field name."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable

WIDTH, INDENT = 78, 26  # of the list of options in --help
FLAGS = ("seed", "device", "resume")  # have an option of their own


def apply_settings(settings: list[str], *targets) -> None:
    """Sets each `name=value` on the first options object that has the field.

    Raises ValueError for text without "=", a name that no target has (listing what there is), or a value that does not
    parse.
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be NAME=VALUE, got {setting!r}")
        if not any(target.set_text(name.strip(), value.strip()) for target in targets):
            known = ", ".join(field.name for target in targets for field in target.fields())
            raise ValueError(f"--set: there is no option {name.strip()!r}; the options are: {known}")


def add_settings_help(command, groups: dict[str, Iterable[type]]) -> None:
    """Appends the options that --set takes to the help of a command, under one heading per group of options classes.

    An option that several classes of a group have is given once.
    """
    parts = [inspect.cleandoc(command.__doc__)]
    for heading, classes in groups.items():
        fields = {field.name: field for options in classes for field in options.fields() if field.name not in FLAGS}
        parts.append("\b\n" + "\n".join([heading, *(settings_line(field) for field in fields.values())]))
    command.__doc__ = "\n\n".join(parts) + "\n"


def settings_line(field) -> str:
    """`  name=default   what it is`, wrapped."""
    setting = f"  {field.name}={field.default or ''}"
    head = f"{setting:<{INDENT - 1}} "
    return textwrap.fill(field.doc, WIDTH, initial_indent=head, subsequent_indent=" " * INDENT)

"""`--set name=value`: every model and training option by its field name."""

from __future__ import annotations


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


def settings_help(*classes) -> str:
    """One line per option, for --help; an option that several classes have is given once."""
    lines: dict[str, str] = {}
    for options in classes:
        for field in options.fields():
            lines.setdefault(field.name, f"{field.name}={field.default}  {field.doc}")
    return "\n\nOptions for --set:\n\n\b\n" + "\n".join(lines.values()) + "\n"

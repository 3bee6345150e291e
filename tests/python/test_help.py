"""What the command line says of itself."""

import afm
import pytest
from afm.cli import run

COMMANDS = [
    "",
    "prepare",
    "train",
    "compress",
    "evaluate",
    "inspect",
    "pack",
    "score",
    "export",
    "report",
    "synth",
    "quickstart",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_and_names_every_option(capsys: pytest.CaptureFixture, command: str):
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "..." not in text.replace("[ARGS]...", "")  # no sentence is cut
    assert "<list[" not in text and " range>" not in text  # types of a person, not of Python
    if command == "train":
        for options in (afm.DeepFMOptions, afm.DCNOptions, afm.TrainOptions):
            for field in options.fields():
                assert f"{field.name}={field.default}" in text or f"--{field.name}" in text


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"afm {afm.__version__}\n"

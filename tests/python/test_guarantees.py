"""docs/guarantees.md: every promise names a test, and every named test exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.(?:cpp|py)) :: ([^`]+)`")


def promises(text: str) -> list[str]:
    """The items of the page that begin with a promise in bold, each with the lines that belong to it."""
    return re.findall(r"^- \*\*.*?(?=^- |^#|^\n|\Z)", text, re.MULTILINE | re.DOTALL)


def missing_in(text: str) -> list[str]:
    return [f"{file} :: {test}" for file, test in NAMED.findall(text) if not is_test(ROOT / file, test)]


def is_test(file: Path, test: str) -> bool:
    opening = f"def {test}(" if file.suffix == ".py" else f'TEST_CASE("{test}"'
    return file.exists() and opening in file.read_text()


@pytest.fixture
def page() -> str:
    return (ROOT / "docs" / "guarantees.md").read_text()


def test_every_named_test_exists(page: str):
    assert missing_in(page) == []
    spoiled = page.replace(":: test_killed", ":: test_never_killed")
    assert len(missing_in(spoiled)) == 1  # the comparison can fail


def test_every_promise_names_a_test(page: str):
    assert len(promises(page)) > 20
    assert [promise for promise in promises(page) if not NAMED.search(promise)] == []


def test_every_section_says_what_is_not_promised(page: str):
    sections = page.split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections if "\nNot promised" not in section] == []


def test_the_front_page_leads_to_the_promises_and_to_the_way_of_reporting():
    front = (ROOT / "README.md").read_text()
    for path in ("docs/guarantees.md", "SECURITY.md", "docs/licences.md"):
        assert f"]({path})" in front and (ROOT / path).exists()

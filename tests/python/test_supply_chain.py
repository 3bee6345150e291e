"""What libafm is built and tested with: pinned, hashed, licensed."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAMILIES = {
    "MIT": r"\bMIT\b",
    "BSD": r"BSD",
    "Apache": r"Apache",
    "MPL": r"\bMPL\b|Mozilla",
    "PSF": r"\bPSF\b|Python Software Foundation",
    "ISC": r"\bISC\b",
    "GPL": r"GPL|General Public",
}


def locked() -> dict[str, tuple[str, list[str]]]:
    """Version and hashes by package."""
    found = {}
    for entry in re.split(r"\n(?=[a-z])", (ROOT / "requirements.lock").read_text())[1:]:
        name, version = re.match(r"([a-z0-9-]+)==(\S+)", entry).groups()
        found[name] = version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry)
    return found


def families(text: str) -> set[str]:
    return {family for family, pattern in FAMILIES.items() if re.search(pattern, text)}


def stated_licence(package: str) -> str:
    data = importlib.metadata.metadata(package)
    classifiers = [line for line in data.get_all("Classifier") or [] if line.startswith("License")]
    first_line = (data.get("License") or "").split("\n")[0]
    return " ".join([data.get("License-Expression") or "", first_line, *classifiers])


def row_of(package: str, page: str) -> str:
    rows = [line for line in page.splitlines() if re.search(rf"^\|.*(?<![\w-]){re.escape(package)}(?![\w-])", line)]
    return " ".join(rows)


def test_every_requirement_is_locked_to_one_version_and_its_hashes():
    lock = locked()
    assert len(lock) > 40
    required = re.findall(r"^([\w-]+)[=<>]", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert set(required) - set(lock) == {"torch"}
    assert [name for name, (_, hashes) in lock.items() if not hashes] == []
    pinned = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert "torch" in dict(pinned)
    assert [name for name, version in pinned if name != "torch" and lock[name][0] != version] == []


def test_the_lock_leaves_the_build_of_torch_to_the_machine():
    """By hashes pip takes the index's CUDA build of gigabytes before a CPU wheel of the machine's own."""
    builds = re.compile(r"(torch|triton|nvidia|cuda)\b")
    assert [name for name in locked() if builds.match(name)] == []


def test_what_the_project_declares_is_what_is_locked():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["test"]
    declared += project["project"]["optional-dependencies"]["onnx"] + project["build-system"]["requires"]
    required = (ROOT / "requirements.txt").read_text().splitlines()
    assert [each for each in declared if each not in required] == []


def test_every_locked_package_has_the_licence_listed_that_it_states():
    page = (ROOT / "docs" / "licences.md").read_text()
    assert [name for name in {*locked(), "torch"} if not row_of(name, page)] == []
    installed = {each.metadata["Name"].lower().replace("_", "-") for each in importlib.metadata.distributions()}
    known = {name: stated_licence(name) for name in locked() if name in installed}
    assert len(known) > 10
    wrong = {name: text for name, text in known.items() if not families(text) <= families(row_of(name, page))}
    assert wrong == {}


def test_no_licence_asks_for_more_than_a_notice():
    """MPL-2.0 asks for the files it covers alone; what is linked or imported holds no GPL."""
    page = (ROOT / "docs" / "licences.md").read_text()
    installed = {each.metadata["Name"].lower().replace("_", "-") for each in importlib.metadata.distributions()}
    assert [name for name in locked() if name in installed and "GPL" in families(stated_licence(name))] == []
    assert "GPL" not in families(page.split("For building and testing alone")[0])


def test_the_lock_installs_here_what_it_says():
    """In the locked environment alone: elsewhere versions are the environment's own."""
    if not (Path(sys.prefix) / ".afm-requirements").exists():
        pytest.skip("not an environment of scripts/bootstrap.sh")
    stamp = (Path(sys.prefix) / ".afm-requirements").read_text()
    if "--hash" not in stamp:
        pytest.skip("an environment with a torch of its own")
    versions = {name: version for name, (version, _) in locked().items() if name != "colorama"}
    found = {name: importlib.metadata.version(name).split("+")[0] for name in versions}
    assert found == versions

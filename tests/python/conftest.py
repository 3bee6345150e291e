"""Fixtures: a small planted task, its schema and datasets; a folder to run the command line in."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models are faster so, and tests run side by side

if importlib.util.find_spec("afm") is None:  # neither installed nor on PYTHONPATH
    sys.path.insert(0, str(Path(__file__).parents[2] / "build" / "python"))

import afm
import pytest
import torch
from afm.cli import run
from home import TINY, Home
from planted import planted_dataset, small_schema
from tables_of_clicks import click_rows, write_table


@pytest.fixture(scope="session")
def schema() -> afm.Schema:
    return small_schema()


@pytest.fixture(scope="session")
def train_set() -> afm.Dataset:
    return planted_dataset(1)


@pytest.fixture(scope="session")
def valid_set() -> afm.Dataset:
    return planted_dataset(2, 1000)


@pytest.fixture
def model(schema: afm.Schema) -> afm.DeepFM:
    torch.manual_seed(3)
    return afm.DeepFM(schema, embedding_dim=4, hidden=[16, 8], init_std=0.1)


@pytest.fixture
def batch(train_set: afm.Dataset) -> afm.Batch:
    return train_set.range(0, 64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    table = write_table(folder / "clicks.csv", click_rows(1500))
    assert run(["prepare", str(table), "--out", str(folder / "clicks")]) == 0
    base = ["train", str(folder / "clicks"), *TINY, "--set", "epochs=2", "--out", str(folder / "base.safetensors")]
    assert run(base) == 0
    return folder


@pytest.fixture
def home(made: Path, monkeypatch, capsys) -> Home:
    monkeypatch.chdir(made)
    return Home(made, capsys)


@pytest.fixture
def own(made: Path, tmp_path: Path, monkeypatch, capsys) -> Home:
    """The same, in a copy that a test may spoil."""
    for path in made.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(made)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return Home(tmp_path, capsys)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

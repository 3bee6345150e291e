"""Fixtures: a small planted task, its schema and datasets."""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small models are faster so, and tests run side by side

if importlib.util.find_spec("afm") is None:  # neither installed nor on PYTHONPATH
    sys.path.insert(0, str(Path(__file__).parents[2] / "build" / "python"))

import afm
import pytest
import torch
from planted import planted_dataset, small_schema


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

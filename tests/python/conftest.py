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

ROWS = 3000
CARDINALITIES = {"user": 60, "item": 40}
GENRES, SLOTS = 12, 3


def small_schema() -> afm.Schema:
    fields = [afm.FieldSpec(name=name, cardinality=size) for name, size in CARDINALITIES.items()]
    fields.append(afm.FieldSpec(name="genres", kind="multi", cardinality=GENRES, max_values=SLOTS))
    fields.append(afm.FieldSpec(name="price", kind="numeric"))
    return afm.Schema(fields)


def planted_rows(seed: int, rows: int = ROWS) -> dict[str, torch.Tensor]:
    """Clicks that follow from user, item and price, so that a model has something to learn."""
    truth = torch.Generator().manual_seed(0)  # the same for every split
    user_taste = torch.randn(CARDINALITIES["user"], generator=truth)
    item_taste = torch.randn(CARDINALITIES["item"], generator=truth)
    random = torch.Generator().manual_seed(seed)
    user = torch.randint(CARDINALITIES["user"], (rows,), generator=random)
    item = torch.randint(CARDINALITIES["item"], (rows,), generator=random)
    genres = torch.randint(GENRES, (rows, SLOTS), generator=random)
    genres[torch.rand(rows, SLOTS, generator=random) < 0.3] = -1
    price = torch.randn(rows, 1, generator=random)
    logit = 1.5 * (user_taste[user] + item_taste[item]) + price[:, 0]
    label = (torch.rand(rows, generator=random) < torch.sigmoid(logit)).float()
    ids = torch.cat([user[:, None], item[:, None], genres], 1).to(torch.int32)
    return {"ids": ids, "dense": price, "label": label}


def planted_dataset(seed: int, rows: int = ROWS) -> afm.Dataset:
    return afm.Dataset.from_tensors(small_schema(), **planted_rows(seed, rows))


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

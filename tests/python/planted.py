"""A small planted task: its schema, rows and datasets."""

import afm
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

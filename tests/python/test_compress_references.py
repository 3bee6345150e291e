"""afm.compress: what else of a model holds its layers and parameters: lists, dicts, functions."""

import functools
import threading
from collections import deque

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, Ranker, made, spread_error
from torch import nn

PLAN = {"tower.0": 8, "tables.f0": 3, "tables.f1": 3}


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


def held(model, ids, plan=PLAN):
    small, report = afm.compress(model, [ids], plan=plan)
    return small, report


def same(tensors, others):
    return [id(t) for t in tensors] == [id(t) for t in others]


def test_lists_of_old_parameters_hold_the_new_ones(ids):
    model = made(Ranker)
    tables = list(model.tables.parameters())
    model.regularization_weight = [(tables, 0.0, 1e-5), ([model.tower[0].weight], 0.0, 1e-4)]
    model.regularization_weight.append((list(model.tower.named_parameters()), 0.0, 0.0))
    model.biases = {"tower": (model.tower[0].bias,)}
    small, report = held(model, ids)
    f0, f1, f2 = small.tables.values()
    (first, _, l2), (second, _, _), (third, _, _) = small.regularization_weight
    assert same(first, [f0.rows.weight, f0.basis.weight, f1.rows.weight, f1.basis.weight, f2.weight]) and l2 == 1e-5
    assert same(second, [small.tower[0][0].weight, small.tower[0][1].weight])
    assert third == [
        ("0.0.weight", small.tower[0][0].weight),
        ("0.1.weight", small.tower[0][1].weight),
        ("0.0.bias", small.tower[0][0].bias),
        ("0.1.bias", small.tower[0][1].bias),
        ("2.weight", small.tower[2].weight),
        ("2.bias", small.tower[2].bias),
    ]
    assert same(small.biases["tower"], [small.tower[0][0].bias, small.tower[0][1].bias])
    assert "held 5 old parameters" in report.notes["regularization_weight"]
    assert "regularization_weight: held 5 old parameters" in str(report)
    assert same(model.regularization_weight[0][0], tables)  # the model stays as it is


def test_a_shared_basis_is_listed_once(ids):
    model = made(Ranker)
    model.listed = [*model.tables.parameters()]
    small, _ = held(model, ids, {f"tables.f{j}": afm.LayerPlan([3], "shared") for j in range(FIELDS)})
    f0, f1, f2 = small.tables.values()
    assert same(small.listed, [f0.rows.weight, f0.basis.weight, f1.rows.weight, f2.rows.weight])


def test_dicts_by_name_by_parameter_and_sets_and_objects_hold_the_new_ones(ids):
    class Penalty:
        def __init__(self, weights):
            self.weights = weights

    model = made(Ranker)
    table = model.tables["f0"].weight
    model.by_name = {"tables.f0.weight": table, "f2.weight": model.tables["f2"].weight}
    model.strength = {table: 0.1}
    model.penalty = Penalty({table})
    small, report = held(model, ids)
    rows, basis = small.tables["f0"].rows.weight, small.tables["f0"].basis.weight
    assert list(small.by_name) == ["tables.f0.rows.weight", "tables.f0.basis.weight", "f2.weight"]
    assert same(small.by_name.values(), [rows, basis, small.tables["f2"].weight])
    assert {id(p): value for p, value in small.strength.items()} == dict.fromkeys(
        (id(p) for p in small.tables["f0"].parameters()), 0.1
    )
    assert {id(p) for p in small.penalty.weights} == {id(rows), id(basis)}
    assert set(report.notes) == {"by_name", "strength", "penalty.weights"}


def test_what_cannot_be_told_keeps_the_old_values_and_is_reported(ids):
    model = made(Ranker)
    table = model.tables["f0"].weight
    object.__setattr__(model, "favourite", table)
    model.chosen = {"best": table}
    model.queue = deque([table])  # not looked into
    small, report = held(model, ids)
    for kept in (small.favourite, small.chosen["best"], small.queue[0]):
        assert torch.equal(kept, table) and kept is not table
    assert "still holds the old tables.f0.weight" in report.notes["favourite"]
    assert "still holds the old tables.f0.weight" in report.notes["chosen['best']"]
    assert "old values" in report.notes["something that holds tables.f0.weight"]


def test_layers_held_past_the_module_tree_are_the_new_ones(ids):
    class Twofold(Ranker):
        def forward(self, ids):
            return super().forward(ids) + self.outside[0]["layer"](self.tables["f0"](ids[:, 0]))

    model = made(Twofold)
    model.extra = nn.Linear(8, 6)
    model.outside = [{"layer": nn.Sequential(model.extra, nn.Linear(6, 1))}]
    model.again_called = model.blocks[0].forward
    small, _ = afm.compress(model, [ids], plan={"extra": 6, "blocks.0": 24, "tower.0": 24})
    assert isinstance(small.extra, afm.FactorizedLinear) and small.outside[0]["layer"][0] is small.extra
    assert small.again_called.__self__ is small.blocks[0] and small.outside[0]["layer"] is not model.outside[0]["layer"]
    assert spread_error(model, small, ids) < 1e-4


def test_weights_that_the_forward_has_from_elsewhere_are_left_alone(ids):
    class Reader(Ranker):
        def __init__(self):
            super().__init__()
            self.raw = [table.weight for table in self.tables.values()]

        def forward(self, ids):
            return super().forward(ids) + self.raw[1][ids[:, 1]].sum(1, keepdim=True)

    model = made(Reader)
    small, report = afm.compress(model, [ids], ratio=1.3)
    assert report.left_alone["tables.f1"].startswith("other code holds its weight past the layer")
    assert type(small.tables["f1"]) is nn.Embedding and small.raw[1] is small.tables["f1"].weight
    assert isinstance(small.tables["f0"], afm.FactorizedEmbedding)
    assert "still holds the old tables." in report.notes["raw"] and torch.equal(small.raw[0], model.raw[0])
    full, _ = afm.compress(model, [ids], plan={"tables.f0": 8, "tower.0": 24})
    assert spread_error(model, full, ids) < 1e-4


def test_code_that_reads_the_weight_of_a_layer_gets_the_product(ids):
    class Reader(Ranker):
        def forward(self, ids):
            table, block = self.tables["f0"], self.blocks[0]
            raw = nn.functional.linear(table.weight[ids[:, 0]], block.weight[:, :8], block.bias)
            return super().forward(ids) + raw.sum(1, keepdim=True)

    model = made(Reader)
    small, report = afm.compress(model, [ids], plan={"tables.f0": 8, "blocks.0": 24})
    assert spread_error(model, small, ids) < 1e-4 and report.left_alone == {}
    small, report = afm.compress(model, [ids], energy=0.6, activation="relu")
    assert report.plan["blocks.0"].activation == "none" and report.plan["tower.0"].activation == "relu"
    assert small(ids).isfinite().all()
    with pytest.raises(ValueError, match=r"'blocks\.0' must have activation 'none'"):
        afm.compress(model, [ids], plan={"blocks.0": afm.LayerPlan([4], activation="relu")})


def test_asking_a_weight_for_its_shape_is_no_reading(ids):
    class Asker(Ranker):
        def forward(self, ids):
            weight = self.tower[0].weight
            assert weight.shape[0] == weight.size(0) and weight.dtype.is_floating_point and weight.device is not None
            return super().forward(ids)

    _, report = afm.compress(made(Asker), [ids], ratio=2, activation="relu")
    assert report.plan["tower.0"].activation == "relu"


# --- copies


def test_functions_over_the_original_are_reported(ids):
    model = made(Ranker)
    model.score = lambda ids: model.head(ids)
    model.plain = torch.relu
    model.part = functools.partial(torch.clamp, min=0)
    _, report = held(model, ids)
    assert list(report.notes) == ["score"] and "goes on using those" in report.notes["score"]


def test_data_that_a_model_holds_is_not_copied(ids):
    model = made(Ranker)
    model.valid_gen = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ids))
    small, report = held(model, ids)
    assert small.valid_gen is model.valid_gen and report.notes == {}


def test_tensors_of_a_batch_and_things_that_cannot_be_copied_do_not_stand_in_the_way(ids):
    model = made(Ranker)
    model.loss = model(ids).mean()  # has a graph
    model.parts = {"last": model(ids) * 2}
    model.tower.lock = threading.Lock()
    small, report = held(model, ids)
    assert torch.equal(small.loss, model.loss) and small.loss.is_leaf and not model.loss.is_leaf
    assert small.tower.lock is model.tower.lock
    assert report.notes == {"tower.lock": "a lock, which cannot be copied: the copy holds the same one"}

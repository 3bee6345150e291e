"""afm.compress: budgets, plans, skipped layers, refusals, and the report."""

import copy

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, Interactions, Ranker, made, spread_error
from torch import nn


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("policy", ["energy", "uniform"])
@pytest.mark.parametrize("basis", ["field", "shared"])
def test_a_ratio_is_met_and_the_model_stays_as_it_is(ids, policy, basis):
    model = made(Ranker).train()
    before = copy.deepcopy(model.state_dict())
    small, report = afm.compress(model, [ids], ratio=1.5, policy=policy, basis=basis)
    after = sum(p.numel() for p in small.parameters())
    assert report.parameters_after == after <= report.parameters_before / 1.5
    assert type(small) is Ranker and isinstance(small.tower[0], nn.Sequential)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert type(model.tower[0]) is nn.Linear
    assert model.training and all(module.training for module in small.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bytes_and_energy_are_met(ids):
    model = made(Ranker)
    _, report = afm.compress(model, [ids], bytes=8000)
    assert report.bytes_after <= 8000 < report.bytes_before
    _, report = afm.compress(model, [ids], energy=0.8)
    assert all(layer.kept_energy >= 0.8 for layer in report.layers if not layer.name.startswith("tables"))
    tables = [layer for layer in report.layers if layer.name.startswith("tables")]
    total = sum(layer.predicted_error / (1 - layer.kept_energy) for layer in tables if layer.rank is not None)
    assert sum(layer.predicted_error for layer in tables) <= 0.2 * total


def test_tables_beside_each_other_share_a_budget_as_the_fields_of_one_embedding(ids):
    model = made(Ranker)
    with torch.no_grad():
        model.tables["f1"].weight.mul_(0.1)  # says little
    _, report = afm.compress(model, [ids], ratio=1.5)
    ranks = {name: layer.ranks[0] for name, layer in report.plan.items() if name.startswith("tables")}
    assert ranks["tables.f1"] < min(ranks.get("tables.f0", 8), ranks.get("tables.f2", 8))


@pytest.mark.parametrize("options", [{}, {"basis": "shared"}, {"activation": "shifted_relu"}])
def test_the_plan_of_a_report_does_the_same_again(ids, options, tmp_path):
    model = made(Ranker)
    small, report = afm.compress(model, [ids], ratio=2, **options)
    report.plan.write(tmp_path / "plan.json")
    again, _ = afm.compress(model, [ids], plan=afm.read_plan(tmp_path / "plan.json"))
    assert spread_error(small, again, ids) == 0.0


@pytest.mark.parametrize("options", [{}, {"basis": "shared"}, {"activation": "relu"}])
def test_the_steps_do_what_the_one_call_does(ids, options):
    model = made(Ranker)
    small, report = afm.compress(model, [ids], ratio=2, skip=["again"], **options)
    statistics = afm.collect_statistics(model, [ids])
    plan = afm.plan_ranks(statistics, ratio=2, skip=["blocks.0"], **options)
    assert plan == report.plan
    assert afm.planned_parameters(statistics, plan) == report.parameters_after
    assert [line.layer for line in afm.summarize(statistics, plan)] == [layer.name for layer in report.layers]
    stepwise = afm.factorize(model, statistics, plan)
    assert type(stepwise) is Ranker and spread_error(small, stepwise, ids) == 0.0
    same, _ = afm.compress(model, statistics, ratio=2, skip=["again"], **options)
    assert spread_error(small, same, ids) == 0.0


def test_statistics_from_a_file_serve_as_well(ids, tmp_path):
    model = made(Ranker, padding_idx=3)
    statistics = afm.collect_statistics(model, [ids])
    statistics.save(tmp_path / "statistics.safetensors")
    loaded = afm.Statistics.load(tmp_path / "statistics.safetensors")
    small, report = afm.compress(model, loaded, ratio=2, activation="shifted_relu", basis="shared")
    wanted, _ = afm.compress(model, statistics, ratio=2, activation="shifted_relu", basis="shared")
    assert spread_error(wanted, small, ids) == 0.0
    assert all(layer.measured_error != layer.measured_error for layer in report.layers if layer.rank is not None)  # nan


def test_the_report_prints_as_a_table(ids):
    _, report = afm.compress(made(Interactions), [ids], ratio=1.3)
    text = str(report)
    assert all(layer.name in text for layer in report.layers)
    assert "optimizer" in text and f"{report.parameters_after:,} parameters" in text
    share = 800 / report.parameters_before
    assert report.left_alone_parameters == {"kernels": 800} and report.left_alone_share("kernels") == share
    assert f"left alone: kernels ({100 * share:.1f} %): a parameter of Interactions" in text


def test_layers_kept_and_left_alone_and_vectors_are_all_of_the_model(ids):
    model = made(Interactions)
    model.scale = nn.Parameter(torch.ones(5))
    _, report = afm.compress(model, [ids], ratio=1.3)
    listed = sum(layer.parameters_before for layer in report.layers) + sum(report.left_alone_parameters.values())
    assert listed + 5 == report.parameters_before == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("root", ["tower", "tower.0"])
def test_skipped_layers_stay_dense(ids, root):
    small, _ = afm.compress(made(Ranker), [ids], energy=0.5, skip=[root])
    assert type(small.tower[0]) is nn.Linear and type(small.blocks[0]) is not nn.Linear


@pytest.mark.parametrize("basis", ["field", "shared"])
def test_one_table_of_several_is_skipped(ids, basis):
    small, _ = afm.compress(made(Ranker), [ids], energy=0.5, skip=["tables.f1"], basis=basis)
    kinds = [type(table) is nn.Embedding for table in small.tables.values()]
    assert kinds == [False, True, False]


def test_a_layer_is_skipped_by_any_of_its_names(ids):
    small, _ = afm.compress(made(Ranker), [ids], energy=0.5, skip=["again"])
    assert type(small.blocks[0]) is nn.Linear and type(small.tower[0]) is not nn.Linear


def test_bad_options_are_refused(ids):
    model = made(Ranker)
    with pytest.raises(ValueError, match="exactly one of ratio, bytes, energy and plan, got ratio, energy"):
        afm.compress(model, [ids], ratio=2, energy=0.5)
    with pytest.raises(ValueError, match="got none"):
        afm.compress(model, [ids])
    with pytest.raises(ValueError, match="must name layers or what holds them, got 'towr'"):
        afm.compress(model, [ids], ratio=2, skip=["towr"])
    with pytest.raises(ValueError, match="no statistics of layer 'towr'"):
        afm.compress(model, [ids], plan={"towr": 2})
    with pytest.raises(afm.DataError, match="at least one batch, got none"):
        afm.compress(model, iter([]), ratio=2)
    with pytest.raises(ValueError, match="ratio must be at most"):
        afm.compress(model, [ids], ratio=1000)
    with pytest.raises(ValueError, match="activation must"):
        afm.compress(model, [ids], ratio=2, activation="tanh")
    with pytest.raises(ValueError, match="basis must"):
        afm.compress(model, [ids], ratio=2, basis="none at all")
    with pytest.raises(TypeError, match="an iterable of batches, got a Tensor; put one into a list"):
        afm.compress(model, ids, ratio=2)
    with pytest.raises(TypeError, match="the model must be a torch.nn.Module, got str"):
        afm.compress("model.pt", [ids], ratio=2)
    with pytest.raises(ValueError, match="they are in the plan"):
        afm.compress(model, [ids], plan={"tower.0": 2}, basis="shared")
    with pytest.raises(TypeError, match="a sequence of names, got the string 'tower'"):
        afm.compress(model, [ids], ratio=2, skip="tower")


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"tower.0": 25}, r"the plan of 'tower\.0' must have one rank in \[0, 24\], got \[25\]"),
        ({"tables.f0": [2, 3]}, r"the plan of 'tables\.f0' must have one rank in \[0, 8\], got \[2, 3\]"),
        ({"tables.f0": afm.LayerPlan([2], activation="relu")}, r"'tables\.f0' must have activation 'none'"),
        ({"tower.0": afm.LayerPlan([2], "shared")}, "must have basis 'field', or 'shared' for an nn.Embedding"),
    ],
)
def test_plans_that_do_not_fit_are_refused(ids, plan, sentence):
    with pytest.raises(ValueError, match=sentence):
        afm.compress(made(Ranker), [ids], plan=plan)


def test_statistics_of_another_model_are_refused(ids):
    statistics = afm.collect_statistics(made(Ranker), [ids])
    other = made(Ranker)
    other.tower[0] = nn.Linear(5, 32)
    with pytest.raises(ValueError, match=r"'tower\.0' must have the shape that its statistics were collected on"):
        afm.factorize(other, statistics, {"tower.0": 2})
    with pytest.raises(ValueError, match="method must be one of mimic, svd, got 'qr'"):
        afm.factorize(made(Ranker), statistics, {"tower.0": 2}, method="qr")

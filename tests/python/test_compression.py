"""Compression in three calls, and its pieces for other models."""

import afm
import pytest
import torch


@pytest.fixture(scope="module")
def trained(schema, train_set, valid_set) -> afm.DeepFM:
    torch.manual_seed(3)
    model = afm.DeepFM(schema, embedding_dim=8, hidden=[32, 32])
    afm.train(model, train_set, valid_set, epochs=6, batch_size=200, learning_rate=0.01)
    return model


@pytest.fixture(scope="module")
def statistics(trained, train_set) -> afm.Statistics:
    return afm.collect_statistics(trained, train_set)


def test_three_calls_make_a_model_smaller(trained, train_set, valid_set, tmp_path):
    statistics = afm.collect_statistics(trained, dataset=train_set)
    plan = afm.plan_ranks(statistics, ratio=2)
    small = afm.factorize(trained, statistics, plan)

    assert isinstance(small, afm.DeepFM) and small.ranks == plan and trained.ranks == {}
    assert afm.parameter_count(small) == afm.planned_parameters(statistics, plan)
    assert afm.parameter_count(small) <= afm.parameter_count(trained) / 2
    comparison = afm.compare(trained, small, valid_set)
    assert comparison.after.metrics.auc > comparison.before.metrics.auc - 0.05
    assert comparison.before.parameters == afm.parameter_count(trained)
    assert "AUC" in comparison.to_markdown()

    afm.save_model(small, tmp_path / "small.safetensors")
    again = afm.load_model(tmp_path / "small.safetensors")
    assert torch.equal(afm.predict(again, valid_set), afm.predict(small, valid_set))
    history = afm.train(small, train_set, valid_set, epochs=1, batch_size=200, teacher=trained)
    assert len(history.epochs) == 1


def test_full_rank_changes_nothing(trained, statistics, valid_set):
    plan = {"embedding": [8, 8, 8], "mlp.layers.1": 32}
    full = afm.factorize(trained, statistics, plan)
    torch.testing.assert_close(afm.predict(full, valid_set), afm.predict(trained, valid_set), rtol=1e-3, atol=1e-4)


def test_mimicking_beats_the_weight_svd(trained, statistics, train_set):
    plan = {"mlp.layers.1": 4}
    before = afm.predict(trained, train_set)
    errors = {
        method: (afm.predict(afm.factorize(trained, statistics, plan, method=method), train_set) - before).pow(2).mean()
        for method in ("mimic", "svd")
    }
    assert errors["mimic"] < errors["svd"]


def test_statistics_describe_every_layer_and_are_kept_in_files(statistics, train_set, tmp_path):
    assert statistics.rows == len(train_set)
    assert {"embedding", "mlp.layers.0", "mlp.layers.1"} <= set(statistics.layers)
    layer = statistics.layers["mlp.layers.1"]
    assert (layer.in_features, layer.out_features, layer.output[0].dim) == (32, 32, 32)
    assert statistics.layers["embedding"].id_counts[0].sum().item() == len(train_set)
    statistics.save(tmp_path / "statistics.safetensors")
    assert afm.inspect(tmp_path / "statistics.safetensors")["kind"] == "afm-statistics"
    again = afm.Statistics.load(tmp_path / "statistics.safetensors")
    assert afm.plan_ranks(again, ratio=3) == afm.plan_ranks(statistics, ratio=3)


def test_statistics_from_batches_equal_those_from_the_dataset(trained, statistics, train_set):
    stream = iter(afm.BatchStream(train_set, shuffle=False, batch_size=500))

    def next_logits() -> torch.Tensor | None:
        batch = next(stream, None)
        return None if batch is None else trained(batch.ids, batch.dense)

    by_hand = afm.collect_statistics(trained, next_logits=next_logits)
    for name, layer in statistics.layers.items():
        torch.testing.assert_close(by_hand.layers[name].output[0].covariance(), layer.output[0].covariance())
    with pytest.raises(ValueError, match="either a dataset or next_logits"):
        afm.collect_statistics(trained)


def test_an_error_in_next_logits_passes_through(trained):
    def fail() -> None:
        raise LookupError("no batch here")

    with pytest.raises(LookupError, match="no batch here"):
        afm.collect_statistics(trained, next_logits=fail)


def test_summaries_and_spectra(statistics):
    plan = afm.plan_ranks(statistics, energy=0.9)
    lines = afm.summarize(statistics, plan)
    assert {line.layer for line in lines} == set(statistics.layers)
    for line in lines:
        values = afm.spectrum_values(statistics, line.layer, line.field)
        assert values == sorted(values, reverse=True)
        if not line.dense:
            assert line.predicted_mse == pytest.approx(sum(values[line.rank :]), rel=1e-6, abs=1e-12)


def test_one_budget_is_wanted(statistics):
    with pytest.raises(ValueError):
        afm.plan_ranks(statistics)
    with pytest.raises(ValueError):
        afm.plan_ranks(statistics, ratio=2, energy=0.9)
    with pytest.raises(ValueError, match="policy must be one of auto, loss, energy, uniform, measured, got 'equal'"):
        afm.plan_ranks(statistics, ratio=2, policy="equal")
    with pytest.raises(ValueError):
        afm.plan_ranks(statistics, ratio=1e9)


def test_skipped_layers_stay_dense(statistics):
    plan = afm.plan_ranks(statistics, ratio=1.5, skip=["embedding"])
    assert plan and "embedding" not in plan


def test_a_plan_is_a_dict_that_a_person_may_edit(tmp_path):
    plan = afm.RankPlan({"mlp.layers.1": 3, "embedding": [2, 0, 1]})
    assert plan["mlp.layers.1"] == afm.LayerPlan([3])
    assert plan.to_dict()["mlp.layers.1"].items() >= {"ranks": [3], "basis": "field", "activation": "none"}.items()
    plan["mlp.layers.1"].ranks[0] = 5
    plan["mlp.layers.0"] = 4
    path = tmp_path / "plan.json"
    plan.write(path)
    again = afm.RankPlan.read(path)
    assert again["mlp.layers.1"].ranks == [5] and again["mlp.layers.0"].ranks == [4]
    assert afm.RankPlan.from_json(again.to_json()) == again == afm.read_plan(path)
    path.write_text(path.read_text().replace("5", "-5"))
    with pytest.raises(afm.FormatError, match="plan.json"):
        afm.read_plan(path)
    with pytest.raises(TypeError, match=r"the plan of mlp must be a LayerPlan, a rank or a list of ranks, got 'all'"):
        afm.RankPlan({"mlp": "all"})
    with pytest.raises(afm.FormatError, match='basis must be one of field, shared, none, got "own"'):
        afm.RankPlan({"embedding": afm.LayerPlan([1], basis="own")}).to_json()


def test_bad_plans_are_refused_before_anything_changes(trained, statistics):
    for plan in ({"mlp.layers.1": 33}, {"mlp.layers.9": 3}, {"embedding": [1]}):
        with pytest.raises(ValueError):
            afm.factorize(trained, statistics, plan)
    with pytest.raises(ValueError, match="method must be one of mimic, svd, got 'pca'"):
        afm.factorize(trained, statistics, {"mlp.layers.1": 3}, method="pca")


def test_moments_and_factors_serve_a_foreign_linear_layer():
    torch.manual_seed(0)
    layer = torch.nn.Linear(12, 9)
    x = torch.randn(500, 12) @ torch.randn(12, 12)
    y = layer(x).detach()
    moments, first, second = afm.Moments(), afm.Moments(9), afm.Moments()
    moments.add(y)
    first.add(y[:200])
    second.add(y[200:])
    first.merge(second)
    torch.testing.assert_close(first.covariance(), moments.covariance())
    torch.testing.assert_close(moments.covariance(), torch.cov(y.double().T, correction=0))

    spectrum = afm.spectrum_of(moments.covariance())
    for k in (0, 3, 9):
        factors = afm.mimic_output(layer.weight.detach(), layer.bias.detach(), moments.mean, spectrum, k)
        mimicked = (x @ factors.down.T + factors.down_bias) @ factors.up.T + factors.up_bias
        error = (mimicked - y).double().pow(2).sum(1).mean().item()
        assert error == pytest.approx(spectrum.discarded(k), rel=1e-3, abs=1e-6)
    truncated = afm.truncate_weight(layer.weight.detach(), None, x.double().mean(0), 9)
    torch.testing.assert_close(truncated.up @ truncated.down, layer.weight.detach(), rtol=1e-3, atol=1e-5)


def test_moments_and_factors_serve_a_foreign_table():
    torch.manual_seed(0)
    table = torch.randn(50, 2) @ torch.randn(2, 6) + 3.0
    counts = torch.randint(1, 20, (50,))
    moments = afm.Moments()
    moments.add_weighted(table, counts)
    assert moments.count == counts.sum().item()
    factors = afm.mimic_table(table, moments.mean, afm.spectrum_of(moments.covariance()), 2)
    torch.testing.assert_close(factors.latent @ factors.basis + factors.offset, table, rtol=1e-3, atol=1e-4)

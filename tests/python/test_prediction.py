"""What compression alone does to the logloss, predicted and measured."""

import afm
import pytest
import torch
from afm.prediction import predict_rise
from afm.recipe import Recipe, as_floats, file_bytes, measure, shrink_to_file
from planted import planted_dataset, small_schema


@pytest.fixture(scope="module")
def clicks():
    return planted_dataset(1, 1500)


@pytest.fixture(scope="module")
def base(clicks):
    torch.manual_seed(1)
    model = afm.DeepFM(small_schema(), embedding_dim=4, hidden=[32, 16], init_std=0.3)
    afm.train(model, clicks, clicks, epochs=3, batch_size=256)
    return model.eval()


@pytest.fixture(scope="module")
def statistics(base, clicks):
    return measure(base, clicks)


def logits(model, clicks):
    return torch.as_tensor(afm.predict(model, clicks)).double()


@pytest.mark.parametrize("fold", [True, False])
def test_integers_are_predicted_from_their_errors_and_floats_lose_nothing(base, clicks, statistics, fold):
    recipe = Recipe(fold=fold, embedding_bits="int4", mlp_bits="int8")
    plan = recipe.plan(base, statistics, ratio=1.5)
    small = recipe.apply(base, statistics, plan)
    found = predict_rise(base, small, statistics, plan, clicks)
    exact = afm.with_bits(small, {})
    rounding = afm.predicted_change(exact, small, clicks, max_rows=0)
    assert found.rounding == pytest.approx(rounding.together) and found.rounding > 0
    assert found.total == found.ranks + found.rounding
    # 1/2 E[p (1 - p) ds^2] of all errors together is the divergence while they are small.
    assert rounding.together == pytest.approx(rounding.measured, rel=0.2)
    assert rounding.measured == pytest.approx(afm.mean_kl(exact, small, clicks), rel=1e-6)
    assert found.measured == pytest.approx(afm.mean_kl(base, small, clicks), rel=1e-6)
    floats = recipe.apply(base, statistics, as_floats(plan))
    assert predict_rise(base, floats, statistics, as_floats(plan), clicks).rounding == 0
    assert torch.equal(logits(floats, clicks), logits(exact, clicks))  # rounded once, from the same floats


def test_four_bits_are_predicted_to_lose_more_than_eight(base, clicks, statistics):
    def rounding(bits):
        recipe = Recipe(embedding_bits=bits, mlp_bits=bits)
        plan = recipe.plan(base, statistics, ratio=1.5)
        return predict_rise(base, recipe.apply(base, statistics, plan), statistics, plan, clicks).rounding

    assert rounding("int4") > 20 * rounding("int8") > 0  # steps are 18 times as wide, errors 330 times in squares


def test_a_folded_model_is_not_compared_with_one_that_is_not(base, clicks, statistics):
    plan = afm.RankPlan({"embedding": [2, 2, 2]})
    folded, plain = (Recipe(fold=fold).apply(base, statistics, plan) for fold in (True, False))
    with pytest.raises(ValueError, match="predicted_change: layer '.*' must"):
        afm.predicted_change(plain, folded, clicks)


def test_scales_that_are_left_to_be_measured_are_those_that_lose_least_in_a_file_of_that_size(base, clicks, statistics):
    recipe = Recipe(
        embedding_bits="int4", mlp_bits="int4", embedding_scale="measured", mlp_scale="measured", units=True
    )
    choices = list(recipe.choices())
    assert len(choices) == 4 and all("measured" not in (one.embedding_scale, one.mlp_scale) for one in choices)
    target = int(file_bytes(base) * 0.8)

    def loss(one):
        small, plan = shrink_to_file(base, statistics, one, target, clicks)
        assert file_bytes(small) <= target
        found = predict_rise(base, small, statistics, plan, clicks)
        assert found.ranks < found.after_training < found.total
        return found.after_training

    alone = [loss(one) for one in choices]
    assert min(alone) < 0.9 * max(alone)  # so that a choice matters
    assert loss(recipe) <= min(alone) * 1.05  # a search that starts elsewhere may end a step aside
    assert len(list(Recipe(embedding_scale="measured", mlp_scale="measured").choices())) == 1  # floats have none

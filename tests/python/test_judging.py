"""The figures of a report, against slow and plain references."""

import afm
import numpy as np
import pytest
from afm import judging


def answers(rows=400, seed=0, ties=False):
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(float)
    first = labels + random.normal(size=rows) * 2
    second = first + random.normal(size=rows)
    if ties:
        first, second = first.round(), second.round()
    return first, second, labels


@pytest.mark.parametrize("ties", [False, True])
def test_placements_give_the_auc_and_match_counting_every_pair(ties):
    first, _, labels = answers(60, ties=ties)
    positive = labels > 0.5
    above, below = judging.placements(first, positive)
    pairs = (first[positive][:, None] > first[~positive]) + 0.5 * (first[positive][:, None] == first[~positive])
    assert np.allclose(above, pairs.mean(1))
    assert np.allclose(below, pairs.mean(0))
    assert np.mean(above) == pytest.approx(afm.auc(first, labels), abs=1e-12)


def test_the_error_of_a_difference_of_aucs_is_that_of_resampled_rows():
    first, second, labels = answers(2000, seed=1)
    difference, error = judging.auc_difference(first, second, labels)
    assert difference == pytest.approx(afm.auc(second, labels) - afm.auc(first, labels), abs=1e-12)
    random, resampled = np.random.default_rng(2), []
    for _ in range(400):
        chosen = random.integers(0, len(labels), len(labels))
        resampled.append(afm.auc(second[chosen], labels[chosen]) - afm.auc(first[chosen], labels[chosen]))
    assert error == pytest.approx(np.std(resampled), rel=0.15)
    assert judging.auc_difference(first, first, labels) == (0.0, 0.0)


def test_calibration_error_is_nought_for_the_truth_and_the_shift_of_a_shifted_one():
    random = np.random.default_rng(3)
    logits = random.normal(size=200_000)
    labels = (random.random(len(logits)) < judging.sigmoid(logits)).astype(float)
    assert judging.calibration_error(logits, labels) < 0.006
    shifted = judging.calibration_error(logits + 1.0, labels)
    expected = np.mean(judging.sigmoid(logits + 1.0) - judging.sigmoid(logits))
    assert shifted == pytest.approx(expected, abs=0.006)


def test_churn_counts_flips_and_measures_kl():
    base, other = np.array([-2.0, 0.5, 3.0]), np.array([-2.0, -0.5, 3.0])
    found = judging.churn(base, other, 0.5)
    p, q = judging.sigmoid(0.5), judging.sigmoid(-0.5)
    assert found["flipped"] == pytest.approx(1 / 3)
    assert found["mean_difference"] == pytest.approx((p - q) / 3)
    assert found["mean_kl"] == pytest.approx((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))) / 3)
    assert judging.churn(base, base, 0.5)["mean_kl"] == pytest.approx(0.0, abs=1e-15)


def test_rarity_is_the_count_of_the_rarest_value_and_nought_for_an_unknown_one():
    schema = afm.Schema([afm.FieldSpec(name="user", cardinality=4), afm.FieldSpec(name="item", cardinality=3)])
    train = afm.Dataset.from_tensors(
        schema, np.array([[1, 1], [1, 2], [2, 1], [3, 1]], np.int32), label=np.array([0, 1, 0, 1], np.float32)
    )
    test = afm.Dataset.from_tensors(
        schema, np.array([[1, 1], [2, 1], [0, 1], [1, 2]], np.int32), label=np.array([0, 1, 0, 1], np.float32)
    )
    assert judging.Rows.of(train, test).rarity.tolist() == [2, 1, 0, 1]


def test_slices_with_one_label_have_no_auc():
    logits = np.linspace(-1, 1, 100)
    rows = judging.Rows(labels=(logits > 0).astype(float), rarity=np.arange(100))
    found = judging.judge(logits, rows)
    assert found["auc"] == 1.0
    assert found["auc_by_decile"][0] is None and found["auc_unseen"] is None
    assert found["rows_unseen"] == 1

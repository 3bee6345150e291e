"""afm synth: a table whose best AUC is known."""

import json
from pathlib import Path

import afm
import numpy as np
import polars as pl
import pytest
from afm.prepare import prepare
from afm.synth import BayesScore, Teacher, sample_frame, synth
from afm.tables import CRITEO_COLUMNS
from sklearn.metrics import log_loss, roc_auc_score

ROWS = 20_000


def test_the_stated_bayes_score_is_that_of_the_teachers_probabilities():
    teacher, score = Teacher(seed=3, max_cardinality=300), BayesScore()
    labels, chances = [], []
    for chunk in range(4):
        frame, p = sample_frame(teacher, np.random.default_rng([3, 1, chunk]), ROWS)
        score.add(p)
        labels.append(frame["label"].to_numpy())
        chances.append(p)
    label, p = np.concatenate(labels), np.concatenate(chances)
    assert score.auc() == pytest.approx(roc_auc_score(label, p), abs=0.005)
    assert score.logloss / score.rows == pytest.approx(log_loss(label, p), abs=0.005)
    assert abs(score.auc() - roc_auc_score(label, np.random.default_rng(0).permutation(p))) > 0.2  # control


def test_the_expected_auc_is_exact_for_few_probabilities():
    p = np.array([0.1, 0.1, 0.6, 0.9])
    score = BayesScore()
    score.add(p)
    wins = sum(a * (1 - b) * (1.0 if a > b else 0.5 if a == b else 0.0) for a in p for b in p)
    assert score.auc() == pytest.approx(wins / (p.sum() * (1 - p).sum()), abs=1e-12)


def test_no_trained_model_beats_the_teacher(tmp_path: Path):
    report = synth(tmp_path / "clicks.csv", rows=ROWS, max_cardinality=100)
    prepare(tmp_path / "clicks.csv", tmp_path / "clicks")
    train_set, valid_set, test_set = (
        afm.Dataset.open(tmp_path / "clicks", name) for name in ("train", "valid", "test")
    )
    model = afm.DeepFM(train_set.schema, embedding_dim=4, hidden=[32], init_std=0.01)
    afm.train(model, train_set, valid_set, epochs=3, batch_size=500, learning_rate=3e-3, embedding_l2=0.01)
    found = afm.evaluate(model, test_set)
    noise = 0.5 / np.sqrt(len(test_set))  # of an AUC over so many rows
    assert 0.6 < found.auc < report.bayes_auc + 3 * noise
    assert found.logloss > report.bayes_logloss - 0.03


def test_the_same_seed_gives_the_same_table_in_chunks_of_any_number(tmp_path: Path, monkeypatch):
    seen = []
    synth(tmp_path / "a.csv", rows=3000, seed=5, max_cardinality=50, on_progress=seen.append)
    synth(tmp_path / "b.csv", rows=3000, seed=5, max_cardinality=50)
    synth(tmp_path / "c.csv", rows=3000, seed=6, max_cardinality=50)
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c
    assert seen == [3000]
    monkeypatch.setattr("afm.synth.ROWS_PER_CHUNK", 1000)
    report = synth(tmp_path / "d.csv", rows=2500, max_cardinality=50, on_progress=seen.append)
    assert seen[1:] == [1000, 2000, 2500]
    assert report.rows == 2500 == pl.read_csv(tmp_path / "d.csv", infer_schema=False).height


def test_both_forms_have_criteos_columns(tmp_path: Path):
    for name in ("t.csv", "t.tsv"):
        report = synth(tmp_path / name, rows=4000, max_cardinality=200)
        assert json.loads((tmp_path / f"{name}.teacher.json").read_text())["bayes_auc"] == report.bayes_auc
    frame = pl.read_csv(tmp_path / "t.csv", infer_schema=False)
    assert frame.columns == CRITEO_COLUMNS
    first = (tmp_path / "t.tsv").read_text().splitlines()[0].split("\t")
    assert first == [value or "" for value in frame.row(0)]
    assert max(frame[name].n_unique() for name in CRITEO_COLUMNS[14:]) > 100
    assert min(frame[name].n_unique() for name in CRITEO_COLUMNS[14:]) == 10
    missing = np.mean([frame[name].null_count() / 4000 for name in CRITEO_COLUMNS[1:14]])
    assert missing == pytest.approx(0.03, abs=0.01)
    assert frame["label"].cast(pl.Int8).mean() == pytest.approx(report.click_rate)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("t.txt", {}, "must end in .csv or .tsv, got 't.txt'"),
        ("t.csv", {"rows": 0}, "rows must be at least 1"),
        ("t.csv", {"max_cardinality": 9}, "max_cardinality at least 10, got 200000, 9"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, name: str, options: dict, sentence: str):
    with pytest.raises(ValueError) as error:
        synth(tmp_path / name, **options)
    assert sentence in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_table_leaves_the_earlier_one(tmp_path: Path):
    synth(tmp_path / "t.csv", rows=100, max_cardinality=20)
    before = (tmp_path / "t.csv").read_bytes()

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth(tmp_path / "t.csv", rows=200, max_cardinality=20, on_progress=stop)
    assert (tmp_path / "t.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.csv.teacher.json"]

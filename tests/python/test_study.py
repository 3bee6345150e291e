"""`afm report` on a planted task: every line runs, a second call runs nothing, and the pages say what the cells say."""

import json
import re

import afm
import pytest
from afm import commands_report
from afm.cli import app
from afm.study import RISES
from planted import planted_rows, small_schema
from typer.testing import CliRunner

SETTINGS = ("embedding_dim=4", "hidden=128,128", "init_std=0.1", "epochs=2", "batch_size=256")
BUDGETS = ["--ratios", "2", "--bytes", "4", "--seeds", "2", "--extra-epochs", "1"]
COMMAND = [part for setting in SETTINGS for part in ("--set", setting)] + BUDGETS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clicks")
    afm.write_schema(path / "schema.json", small_schema())
    for split, (seed, rows) in {"train": (1, 1500), "valid": (2, 500), "test": (3, 500)}.items():
        writer = afm.DatasetWriter(path, small_schema(), split)
        writer.append(**planted_rows(seed, rows))
        writer.finish()
    return path


@pytest.fixture(scope="module")
def study(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    done = CliRunner().invoke(app, ["report", str(folder), *COMMAND, "--out", str(output)])
    assert done.exit_code == 0, done.output
    return output


def test_a_report_has_controls_baselines_and_compressed_models_with_paired_differences(study):
    summary = json.loads((study / "report.json").read_text())
    lines = {line["key"]: line for line in summary["lines"]}
    assert {
        "base-judged",
        "control-e",
        "control-t",
        "integers-int8",
        "ranks-2",
        "svd-2",
        "afm-2",
        "all-4",
        "scratch-4",
        "scratch-float-4",
    } <= set(lines)
    assert lines["control-e"]["minus_T"]["mean"] == pytest.approx(-lines["control-t"]["minus_E"]["mean"])
    assert lines["all-4"]["times"] > 3.9
    int8, floats = lines["scratch-4"], lines["scratch-float-4"]
    assert floats["parameters"]["mean"] < int8["parameters"]["mean"] / 2
    assert max(line["bytes"]["mean"] for line in (int8, floats)) <= summary["base_bytes"] / 4
    assert lines["all-4"]["bytes"]["mean"] <= summary["base_bytes"] / 4
    assert lines["ranks-2"]["parameters"]["mean"] <= lines["base-judged"]["parameters"]["mean"] / 2
    assert lines["base-judged"]["flipped"]["mean"] == 0 < lines["all-4"]["flipped"]["mean"]
    assert set(RISES) <= set(lines["ranks-2"]) & set(lines["all-4"])
    assert not set(RISES) & set(lines["afm-2"])  # no metric, no prediction
    for key in ("ranks-2", "all-4"):
        ranks, rounding, predicted, calibration = (lines[key][name]["mean"] for name in RISES[:4])
        assert predicted == pytest.approx(ranks + rounding)
        assert calibration > 0 and (rounding > 0) == (key == "all-4")  # the one with integers
    assert all(len(line["auc_by_decile"]) == 10 for line in lines.values() if "refused" not in line)


def test_the_pages_hold_every_line(study):
    names = [line["name"] for line in json.loads((study / "report.json").read_text())["lines"]]
    markdown, page = (study / "report.md").read_text(), (study / "report.html").read_text()
    assert all(name in markdown for name in names)
    assert "| ranks | + rounding | = predicted | KL on calibration rows | measured on validation rows |" in markdown
    assert "<svg" in page and "libafm 4x bytes" in page


def test_a_second_call_reuses_every_cell(study, folder, monkeypatch):
    monkeypatch.setattr(afm, "train", None)
    monkeypatch.setattr(commands_report, "_studies", {})
    before = (study / "report.json").read_text()
    done = CliRunner().invoke(app, ["report", str(folder), *COMMAND, "--out", str(study)])
    assert done.exit_code == 0, done.output
    assert (study / "report.json").read_text() == before


def test_a_folder_of_another_study_is_refused(study, folder):
    other = [part.replace("epochs=2", "epochs=3") for part in COMMAND]
    done = CliRunner().invoke(app, ["report", str(folder), *other, "--out", str(study)])
    assert isinstance(done.exception, ValueError) and "holds a study with training" in str(done.exception)


def test_other_models_may_be_the_teacher(study, folder, tmp_path):
    teacher = afm.WideDeep(small_schema(), embedding_dim=2, hidden=[4], init_std=1.0)
    afm.save_model(teacher, tmp_path / "teacher.safetensors")
    command = [*COMMAND, "--only", "control", "--teacher", str(tmp_path / "teacher.safetensors")]
    done = CliRunner().invoke(app, ["report", str(folder), *command, "--out", str(tmp_path / "taught")])
    assert done.exit_code == 0, done.output
    alone, taught = (
        [json.loads((out / key / "1.json").read_text())["auc"] for out in (study, tmp_path / "taught")]
        for key in ("control-e", "control-t")
    )
    assert alone[0] == alone[1] and taught[0] != taught[1]
    assert "the mean logit of 1 given model(s)" in (tmp_path / "taught" / "report.md").read_text()


@pytest.mark.parametrize("bad", ["0.5", "5,x"])
def test_budgets_must_be_numbers_above_one(folder, tmp_path, bad):
    done = CliRunner().invoke(app, ["report", str(folder), "--ratios", bad, "--out", str(tmp_path)])
    assert isinstance(done.exception, ValueError) and "--ratios must be numbers above 1" in str(done.exception)


def test_compress_makes_a_file_so_many_times_smaller_with_several_teachers(folder, tmp_path):
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    bases = [tmp_path / f"base{seed}.safetensors" for seed in (1, 2)]
    for seed, base in enumerate(bases, 1):
        done = CliRunner().invoke(app, ["train", str(folder), *settings, "--seed", str(seed), "--out", str(base)])
        assert done.exit_code == 0, done.output
    small, teachers = tmp_path / "small.safetensors", [part for base in bases for part in ("--teacher", str(base))]
    command = [
        "compress",
        str(bases[0]),
        str(folder),
        "--smaller",
        "4",
        "--epochs",
        "1",
        *teachers,
        "--out",
        str(small),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert re.search(r"ranks \+\S+, rounding \+\S+, predicted \+\S+; KL on calibration rows \+", done.output)
    assert 4.0 <= bases[0].stat().st_size / small.stat().st_size < 6.0
    model = afm.load_model(small)
    assert not json.loads(model.core.options_json)["batch_norm"]  # folded
    assert json.loads(model.notes["training"])["batch_size"] == 256
    assert afm.evaluate(model, afm.Dataset.open(folder, "test")).rows == 500


def test_no_teacher_stands_alone(folder, tmp_path):
    base = tmp_path / "base.safetensors"
    afm.save_model(afm.DeepFM(small_schema(), embedding_dim=4, hidden=[8]), base)
    command = ["compress", str(base), str(folder), "--ratio", "2", "--teacher", "none", "--teacher", "base"]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "small.safetensors")])
    assert isinstance(done.exception, ValueError) and "--teacher none must stand alone" in str(done.exception)

"""The command line on small tables: the whole story, and one clear sentence for each bad input."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import afm
import numpy as np
import polars as pl
import pytest
from afm.cli import run

ROWS = 3000
SMALL = ["--set", "embedding_dim=4", "--set", "hidden=16,8", "--set", "batch_size=256", "--set", "learning_rate=0.01"]


def write_clicks(path: Path, rows: int = ROWS, seed: int = 1) -> Path:
    random = np.random.default_rng(seed)
    user, item = random.integers(0, 30, rows), random.integers(0, 20, rows)
    logit = np.sin(user) + np.cos(item) * 1.5
    frame = pl.DataFrame(
        {
            "click": (random.random(rows) < 1 / (1 + np.exp(-2 * logit))).astype(int),
            "user": [f"u{value}" for value in user],
            "item": [f"{value:03d}" for value in item],
            "tags": ["|".join(f"t{tag}" for tag in random.integers(0, 5, random.integers(0, 4))) for _ in range(rows)],
            "price": [f"{value:.2f}" for value in random.lognormal(1, 1, rows)],
        }
    )
    frame.write_csv(path)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset folder `clicks` and a trained model `base.safetensors`."""
    folder = tmp_path_factory.mktemp("home")
    write_clicks(folder / "clicks.csv")
    assert run(["prepare", str(folder / "clicks.csv"), "--out", str(folder / "clicks")]) == 0
    base = ["train", str(folder / "clicks"), *SMALL, "--set", "epochs=8", "--out", str(folder / "base.safetensors")]
    assert run(base) == 0
    return folder


def complaint(capsys: pytest.CaptureFixture, arguments: list, code: int = 2) -> str:
    """The sentence on standard error of a command that must fail."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == code
    return " ".join(capsys.readouterr().err.split())


def result(capsys: pytest.CaptureFixture, arguments: list) -> dict:
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 0
    return json.loads(capsys.readouterr().out)  # standard output holds JSON and nothing else


def test_train_compress_evaluate_inspect(home: Path, capsys: pytest.CaptureFixture):
    small = home / "small.safetensors"
    done = result(
        capsys,
        [
            "compress",
            home / "base.safetensors",
            home / "clicks",
            "--ratio",
            1.3,
            "--epochs",
            1,
            "--out",
            small,
            "--json",
        ],
    )
    assert done["valid"]["after"]["parameters"] * 1.3 <= done["valid"]["before"]["parameters"]
    assert (home / "small.plan.json").exists() and not (home / "small.safetensors.checkpoint").exists()

    judged = result(capsys, ["evaluate", small, home / "clicks", "--split", "test", "--json"])
    assert {"auc", "logloss", "rows", "parameters", "bytes"} <= judged.keys()
    assert judged["auc"] > 0.7 and judged["bytes"] == small.stat().st_size

    seen = result(capsys, ["inspect", small, "--json"])
    assert seen["kind"] == "afm-model" and seen["ranks"] and {"embedding", "wide", "mlp"} <= seen["groups"].keys()
    assert sum(group["parameters"] for group in seen["groups"].values()) == seen["parameters"] == judged["parameters"]
    assert result(capsys, ["inspect", home / "clicks", "--json"])["kind"] == "afm-dataset"

    edited = home / "edited.plan.json"
    edited.write_text((home / "small.plan.json").read_text())
    again = home / "again.safetensors"
    command = ["compress", home / "base.safetensors", home / "clicks", "--plan", edited, "--epochs", 0, "--out", again]
    assert result(capsys, [*command, "--json"])["plan"] == done["plan"]


def test_splits_follow_from_the_rows_alone(home: Path, tmp_path: Path):
    rows = pl.read_csv(home / "clicks.csv", infer_schema=False)
    rows.sample(fraction=1.0, shuffle=True, seed=7).write_csv(tmp_path / "shuffled.csv")
    with gzip.open(tmp_path / "zipped.csv.gz", "wb") as stream:
        stream.write((home / "clicks.csv").read_bytes())
    rows.write_parquet(tmp_path / "clicks.parquet")
    sizes = [len(afm.Dataset.open(home / "clicks", split)) for split in ("train", "valid", "test")]
    assert sum(sizes) == ROWS and 0.75 < sizes[0] / ROWS < 0.85
    for name in ("shuffled.csv", "zipped.csv.gz", "clicks.parquet"):
        assert run(["prepare", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 0
        assert [len(afm.Dataset.open(tmp_path / "out", split)) for split in ("train", "valid", "test")] == sizes
        mine, theirs = (afm.Dataset.open(folder).schema.fields for folder in (tmp_path / "out", home / "clicks"))
        for a, b in zip(mine, theirs, strict=True):  # sums over rows in another order round differently
            assert (a.name, a.vocabulary, a.max_values) == (b.name, b.vocabulary, b.max_values)
            assert a.scale == pytest.approx(b.scale, rel=1e-12)


def test_values_are_counted_on_training_rows_alone(tmp_path: Path):
    for name, value in (("train", "a"), ("valid", "b"), ("test", "c")):
        (tmp_path / f"{name}.csv").write_text(f"label,x\n0,{value}\n1,{value}\n")
    files = [str(tmp_path / f"{name}.csv") for name in ("train", "valid", "test")]
    assert run(["prepare", files[0], "--valid", files[1], "--test", files[2], "--out", str(tmp_path / "d")]) == 0
    ids = [
        afm.Dataset.open(tmp_path / "d", split).range(0, 2).ids.flatten().tolist()
        for split in ("train", "valid", "test")
    ]
    assert ids == [[1, 1], [0, 0], [0, 0]]


def test_synth_states_the_best_that_is_possible(tmp_path: Path, capsys: pytest.CaptureFixture):
    table = tmp_path / "s.tsv"
    told = result(capsys, ["synth", table, "--rows", 20000, "--max-cardinality", 500, "--json"])
    first = table.read_bytes()
    assert len(first.splitlines()) == 20000 and first.split(b"\n")[0].count(b"\t") == 39
    result(capsys, ["synth", table, "--rows", 20000, "--max-cardinality", 500, "--json"])
    assert table.read_bytes() == first  # the same seed, the same table
    assert run(["prepare", str(table), "--out", str(tmp_path / "s")]) == 0
    assert (
        run(["train", str(tmp_path / "s"), *SMALL, "--set", "epochs=2", "--out", str(tmp_path / "m.safetensors")]) == 0
    )
    reached = result(capsys, ["evaluate", tmp_path / "m.safetensors", tmp_path / "s", "--split", "test", "--json"])
    assert 0.55 < reached["auc"] < told["bayes_auc"] + 0.02


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("label,x\n0,a\n1\n", "t.csv:3: 1 columns, expected 2"),
        ('label,x\n0,"a"\n1\n', "t.csv:3: 1 columns, expected 2"),
        ("label,x\n0,a\n2,b\n", "t.csv:3: label 'label' must be 0 or 1, got '2'"),
        ("label,x\n0,a\n,b\n", "t.csv:3: label 'label' must be 0 or 1"),
        (
            "label,x\n0,1.5\n1,inf\n",
            "t.csv:3: field 'x' must be a finite number, or empty where it is missing, got 'inf'",
        ),
        ("label,x\n0,a\n", "split has no rows"),
        ("x,z\na,b\n", "no column that looks like a label"),
        ("label,x,x\n0,a,b\n", "column names must be unique"),
        ("", "is empty"),
    ],
)
def test_bad_tables(tmp_path: Path, capsys: pytest.CaptureFixture, text: str, sentence: str):
    (tmp_path / "t.csv").write_text(text)
    schema = tmp_path / "s.json"
    kind = "numeric" if "inf" in text else "categorical"
    schema.write_text(json.dumps({"label": "label", "fields": [{"name": "x", "kind": kind}]}))
    given = [] if "z" in text or "x,x" in text else ["--schema", schema]
    assert sentence in complaint(capsys, ["prepare", tmp_path / "t.csv", "--out", tmp_path / "d", *given])
    assert not list((tmp_path / "d").glob("*")) if (tmp_path / "d").exists() else True


def test_columns_and_schema_must_agree(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "t.csv").write_text("label,x,y\n0,a,b\n1,a,b\n")
    schema = tmp_path / "s.json"
    command = ["prepare", tmp_path / "t.csv", "--out", tmp_path / "d", "--schema", schema]
    schema.write_text('{"label": "label", "fields": [{"name": "x", "kind": "categorical"}]}')
    assert "has a column 'y' that the schema lacks" in complaint(capsys, command)
    schema.write_text('{"label": "label", "fields": [{"name": "z", "kind": "categorical"}]}')
    assert "has no column 'z' that the schema names; its columns are: label, x, y" in complaint(capsys, command)
    schema.write_text('{"label": "label", "fields": [{"name": "x", "kind": "categorical", "transfrom": 1}]}')
    assert "unknown key 'transfrom'" in complaint(capsys, command)
    assert "schema.json" not in os.listdir(tmp_path)


def test_bad_options_and_files(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "m.safetensors"
    train = ["train", home / "clicks", "--out", out]
    assert "there is no option 'hiden'; the options are: embedding_dim" in complaint(
        capsys, [*train, "--set", "hiden=3"]
    )
    assert "TrainOptions.epochs must be an integer" in complaint(capsys, [*train, "--set", "epochs=many"])
    assert "dropout must be in [0, 1), got 1.5" in complaint(capsys, [*train, "--set", "dropout=1.5"])
    assert "deepfm" in complaint(capsys, [*train, "--model", "deepfn"])
    assert "No such option" in complaint(capsys, [*train, "--bogus"])
    assert "exactly one of" in complaint(capsys, ["compress", home / "base.safetensors", home / "clicks", "--out", out])
    assert "PlanOptions.ratio must be at most" in complaint(
        capsys, ["compress", home / "base.safetensors", home / "clicks", "--ratio", 900, "--out", out]
    )
    plan = tmp_path / "plan.json"
    plan.write_text('{"kind": "afm-rank-plan", "version": 1, "layers": {"mlp.layers.0": {"rank": 999}}}')
    assert "999" in complaint(
        capsys, ["compress", home / "base.safetensors", home / "clicks", "--plan", plan, "--out", out]
    )
    assert complaint(capsys, ["evaluate", tmp_path / "absent.safetensors", home / "clicks"])
    data = (home / "base.safetensors").read_bytes()
    for broken in (data[:-1], data[:2000], data[:-9] + b"\x01" + data[-8:], b"not a model"):
        out.write_bytes(broken)
        assert "m.safetensors" in complaint(capsys, ["evaluate", out, home / "clicks"])
        assert out.read_bytes() == broken


def test_a_model_refuses_a_dataset_of_another_schema(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    write_clicks(tmp_path / "other.csv", rows=500, seed=2)
    assert run(["prepare", str(tmp_path / "other.csv"), "--out", str(tmp_path / "other"), "--ignore", "user"]) == 0
    assert "user" in complaint(capsys, ["evaluate", home / "base.safetensors", tmp_path / "other"])


def test_interrupted_training_resumes(home: Path, tmp_path: Path):
    out = tmp_path / "m.safetensors"
    command = [sys.executable, "-m", "afm", "train", str(home / "clicks"), *SMALL, "--set", "epochs=400"]
    command += ["--set", "patience=0", "--set", "checkpoint_seconds=0.05", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(afm.__file__).parents[1])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not Path(f"{out}.checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "--resume" in told and "Traceback" not in told and "\x1b" not in told
    afm.inspect(f"{out}.checkpoint")  # whole
    shorter = [argument.replace("epochs=400", "epochs=5") for argument in command]
    done = subprocess.run(
        [*shorter, "--resume"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert out.exists() and not Path(f"{out}.checkpoint").exists()


def test_a_full_disk_loses_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "none", disk], check=False).returncode
    ):
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        (disk / "kept").write_text("old")
        clicks, base = home / "clicks", home / "base.safetensors"
        told = complaint(capsys, ["compress", base, clicks, "--ratio", 1.2, "--epochs", 0, "--out", disk / "m"], code=1)
        assert "No space left on device" in told
        assert {path.name for path in disk.iterdir()} <= {"kept", "m.plan.json"}
        assert (disk / "kept").read_text() == "old"
    finally:
        subprocess.run(["umount", disk], check=False)


@pytest.mark.parametrize("command", ["prepare", "train", "compress", "evaluate", "inspect", "synth", "quickstart"])
def test_help(command: str, capsys: pytest.CaptureFixture):
    assert run([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out

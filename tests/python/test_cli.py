"""How the command line speaks: exit codes, one sentence for each bad input, pipes, JSON, and going on after a stop."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import afm
import pytest
import torch
from afm import fitting
from home import TINY, Home
from tables_of_clicks import click_rows, write_table

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(afm.__file__).parents[1]), "FORCE_COLOR": ""}


def equal_weights(a: Path, b: Path) -> bool:
    mine, theirs = afm.load_model(a).state_dict(), afm.load_model(b).state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_prepare_shows_the_guess_and_prints_rows_as_json(own: Home):
    done = own.json("prepare clicks.csv --out again --ignore tags")
    assert done["guessed"] and sum(done["rows"].values()) == 1500 and done["folder"] == "again"
    assert own.json("inspect again")["rows"] == done["rows"]
    out, err = own.run("prepare clicks.csv --out again --schema clicks/schema.json")
    assert "train" in out and err == ""
    out, err = own.run("prepare clicks.csv --out again")
    assert '"name": "user"' in err and "--schema" in err


def test_three_files_are_the_three_splits_of_a_synthetic_table(own: Home):
    told = [own.json(f"synth {name}.csv --rows 300 --seed {seed}") for seed, name in enumerate("abc")]
    assert all(0.5 < each["bayes_auc"] < 1 for each in told)
    assert own.json("prepare a.csv --valid b.csv --test c.csv --out synthetic")["rows"] == dict.fromkeys(
        ("train", "valid", "test"), 300
    )


def test_an_unknown_key_of_a_schema_is_named(own: Home):
    own.path("s.json").write_text('{"label": "label", "fields": [{"name": "x", "transfrom": 1}]}')
    assert "unknown key 'transfrom'" in own.complaint("prepare clicks.csv --out d --schema s.json")


def test_evaluate_and_inspect_have_the_keys_that_machines_read(home: Home):
    found = home.json("evaluate base.safetensors clicks")
    ids = afm.Dataset.open("clicks", "test").range(0, found["rows"]).ids
    assert found["unknown"]["user"] == (ids[:, 0] == 0).float().mean().item()
    assert "unknown values" in home.run("evaluate base.safetensors clicks")[0]
    assert list(found) == ["auc", "logloss", "rows", "parameters", "bytes", "unknown"]
    assert found["rows"] == len(afm.Dataset.open("clicks", "test"))
    assert home.json("evaluate base.safetensors clicks --split train")["rows"] == len(afm.Dataset.open("clicks"))
    seen = home.json("inspect base.safetensors")
    assert {"kind", "options", "ranks", "groups", "parameters", "bytes"} <= seen.keys()
    assert seen["options"]["hidden"] == [16, 8] and seen["ranks"] == {}
    assert found["parameters"] == sum(group["parameters"] for group in seen["groups"].values())
    assert "every layer is dense" in home.run("inspect base.safetensors")[0]


def test_sizes_for_people_are_those_of_the_files(own: Home):
    printed = own.run("compress base.safetensors clicks --ratio 1.3 --epochs 0 --out small.safetensors")[0]
    printed += own.run("evaluate small.safetensors clicks")[0]
    for name, times in {"base.safetensors": 1, "small.safetensors": 2}.items():
        assert printed.count(f"{own.path(name).stat().st_size:,} ") == times


def test_a_cross_network_has_a_group_of_its_own(own: Home):
    own.run(f"train clicks --model dcn --out dcn.safetensors {' '.join(TINY)} --set epochs=1 --set cross_layers=2")
    groups = own.json("inspect dcn.safetensors")["groups"]
    assert {"embedding", "cross", "mlp"} <= groups.keys()
    assert groups["cross"]["parameters"] > 0


def test_an_edited_plan_is_obeyed(own: Home):
    own.run("compress base.safetensors clicks --ratio 1.3 --epochs 0 --out small.safetensors")
    plan = json.loads(own.path("small.plan.json").read_text())
    plan["layers"] = {"mlp.layers.0": {"rank": 2}, "embedding": {"ranks": [1, 0]}}
    own.path("edited.json").write_text(json.dumps(plan))
    done = own.json("compress base.safetensors clicks --plan edited.json --epochs 0 --out edited.safetensors")
    ranks = own.json("inspect edited.safetensors")["ranks"]
    assert {layer: value["ranks"] for layer, value in ranks.items()} == {"mlp.layers.0": [2], "embedding": [1, 0]}
    assert done["plan"].keys() == ranks.keys()


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ({"mlp.layers.0": {"rank": 999}}, r"mlp\.layers\.0.*999"),
        ({"embedding": {"ranks": [1, 9]}}, r"embedding.*9"),
        ({"embedding": {"ranks": [1]}}, r"embedding"),
        ({"mlp.layers.0": {"rank": -1}}, r"mlp\.layers\.0.*-1"),
        ({"mlp.layers.7": {"rank": 1}}, r"mlp\.layers\.7"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(own: Home, layers: dict, sentence: str):
    own.path("p.json").write_text(json.dumps({"kind": "afm-rank-plan", "version": 1, "layers": layers}))
    own.run("compress base.safetensors clicks --energy 0.9 --epochs 0 --out s.safetensors --statistics st.safetensors")
    told = own.complaint(
        "compress base.safetensors clicks --plan p.json --epochs 0 --out s.safetensors --statistics st.safetensors"
    )
    assert re.search(sentence, told)


def test_a_statistics_file_is_written_once_and_then_read(own: Home, monkeypatch):
    line = "compress base.safetensors clicks --ratio 1.3 --epochs 0 --statistics st.safetensors --out"
    own.run(f"{line} a.safetensors")
    assert own.json("inspect st.safetensors")["kind"] == "afm-statistics"
    monkeypatch.setattr(afm, "collect_statistics", None)  # would fail
    own.run(f"{line} b.safetensors")
    assert equal_weights(own.path("a.safetensors"), own.path("b.safetensors"))


@pytest.mark.parametrize("budget", ["--bytes 2000", "--energy 0.95", "--ratio 1.2 --policy uniform --method svd"])
def test_every_budget_makes_a_smaller_model_that_trains_on(own: Home, budget: str):
    done = own.json(f"compress base.safetensors clicks {budget} --epochs 1 --out small.safetensors")
    before, after = done["valid"]["before"], done["valid"]["after"]
    assert after["parameters"] < before["parameters"]
    assert not own.path("small.safetensors.checkpoint").exists()
    if "--bytes" in budget:
        assert after["bytes"] <= 2000


class Stop:
    """A progress bar that is interrupted after the second epoch, once."""

    def __init__(self):
        self.pressed = False

    def __call__(self, progress: afm.Progress) -> None:
        if progress.finished is not None and progress.epoch == 2 and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "command",
    [
        "train clicks --set epochs=4 --set patience=0 --set dropout=0.2 --seed 3 " + " ".join(TINY),
        "compress base.safetensors clicks --ratio 1.3 --epochs 4 --seed 3",
    ],
    ids=["train", "compress"],
)
def test_interrupted_and_resumed_equals_never_interrupted(own: Home, monkeypatch, command: str):
    from contextlib import nullcontext

    own.run(f"{command} --out whole.safetensors")
    stop = Stop()
    monkeypatch.setattr(fitting, "training_bar", lambda what: nullcontext(stop))
    _, err = own.run(f"{command} --out parts.safetensors", code=2)
    assert err.splitlines()[-1] == ("afm: interrupted; the same command with --resume goes on from the last checkpoint")
    assert not own.path("parts.safetensors").exists()
    assert own.json("inspect parts.safetensors.checkpoint")["kind"] == "afm-checkpoint"
    own.run(f"{command} --out parts.safetensors --resume")
    assert stop.pressed
    assert equal_weights(own.path("whole.safetensors"), own.path("parts.safetensors"))
    assert not own.path("parts.safetensors.checkpoint").exists()


@pytest.mark.usefixtures("one_thread")
def test_several_seeds_at_once_are_the_models_of_each_seed(own: Home):
    line = f"train clicks {' '.join(TINY)} --set epochs=2 --set dropout=0.1"
    for seed in (3, 5):
        own.run(f"{line} --seed {seed} --out alone{seed}.safetensors")
    torch.set_num_threads(2)
    told = own.json(f"{line} --seeds 3,5 --out m.safetensors")
    assert [each["model"] for each in told] == ["m-3.safetensors", "m-5.safetensors"]
    for seed, each in zip((3, 5), told, strict=True):
        assert each["seed"] == seed and len(each["epochs"]) == 2
        assert own.path(each["model"]).read_bytes() == own.path(f"alone{seed}.safetensors").read_bytes()
        assert not own.path(f"{each['model']}.checkpoint").exists()
    printed, progress = own.run(f"{line} --seeds 3,5 --out m.safetensors")
    assert "standard deviation" in printed and "seed 5: epoch  2" in progress
    assert own.complaint(f"{line} --seeds 3,x --out n.safetensors").endswith("with commas between, got '3,x'")
    assert own.complaint(f"{line} --seeds 3,3 --out n.safetensors").endswith("differ from each other, got '3,3'")


def started(arguments: list[str], folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "afm", *arguments], cwd=folder, env=ENVIRONMENT, text=True, **options
    )


def test_ctrl_c_leaves_the_earlier_model_and_a_checkpoint_that_finishes(own: Home):
    before = own.path("base.safetensors").read_bytes()
    line = ["train", "clicks", *TINY, "--set", "checkpoint_seconds=0.01", "--set", "patience=0"]
    line += ["--out", "base.safetensors"]
    process = started([*line, "--set", "epochs=100000"], own.folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(own.path("base.safetensors.checkpoint"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1].endswith("the same command with --resume goes on from the last checkpoint")
    assert out == "" and "Traceback" not in err
    assert own.path("base.safetensors").read_bytes() == before
    history = afm.inspect("base.safetensors.checkpoint")["metadata"]["position"]["history"]["epochs"]
    own.run(f"{' '.join(line)} --set epochs={len(history) + 1} --resume")
    assert own.path("base.safetensors").read_bytes() != before
    assert not own.path("base.safetensors.checkpoint").exists()


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)


def test_a_pipe_gets_no_control_characters_and_stdout_nothing_but_json(own: Home):
    line = ["train", "clicks", *TINY, "--set", "epochs=2", "--out", "m.safetensors", "--json"]
    process = started(line, own.folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert [epoch["epoch"] for epoch in json.loads(out)["epochs"]] == [1, 2]
    assert not set(out + err) & {"\x1b", "\r", "\b"}
    assert len(err.splitlines()) == 2  # one line for each epoch


WRONG = {
    "": "Usage:",
    "trian": "No such command 'trian'.",
    "train": "Missing argument 'folder'.",
    "train clicks": "Missing option '--out'",
    "train clicks --out m --bogus": "No such option: --bogus",
    "train clicks --out m --seed one": "Invalid value for '--seed'",
    "train clicks --out m --model deepfn": "model must be one of deepfm, dcn, wide_deep, got 'deepfn'",
    "train clicks --out m --set hiden=3": "there is no option 'hiden'; the options are: embedding_dim, hidden",
    "train clicks --out m --set hidden": "--set must be NAME=VALUE, got 'hidden'",
    "train clicks --out m --set hidden=a": "DeepFMOptions.hidden must be",
    "train clicks --out m --set epochs=1.5": "TrainOptions.epochs must be an integer, got 1.5",
    "train clicks --out m --set batch_norm=perhaps": "DeepFMOptions.batch_norm must be",
    "train clicks --out m --set dropout=1": "DeepFMOptions.dropout must be in [0, 1), got 1",
    "train clicks --out m --set schedule=cosine": "schedule",
    "train clicks --out m --device tpu": "TrainOptions.device must be cpu, cuda or cuda:N, got tpu",
    "train clicks --out clicks": "--out must be a file, got the folder 'clicks'",
    "train clicks --out m --teacher absent": "cannot read 'absent': No such file or directory",
    "train absent --out m": "cannot read 'absent/schema.json': No such file or directory",
    "train clicks.csv --out m": "'clicks.csv' is no dataset folder, as afm prepare makes one",
    "train . --out m": "'.' is no dataset folder",
    "compress base.safetensors clicks --out m": "exactly one of --smaller, --ratio, --bytes, --energy and --plan",
    "compress base.safetensors clicks --out m --ratio 2 --energy 0.9": "must be given, got ratio, energy",
    "compress base.safetensors clicks --out base.safetensors --ratio 2": "--out must be another file than the model",
    "compress base.safetensors clicks --out m --smaller 2 --skip mlp": "--skip goes with --ratio, --bytes or --energy",
    "compress base.safetensors clicks --out m --smaller 2 --method svd": "not with --smaller, which decides it",
    "compress base.safetensors clicks --out m --smaller 2 --basis shared": "--basis goes with --ratio",
    "compress base.safetensors clicks --out m --ratio 1": "--ratio must be above 1, got 1",
    "compress base.safetensors clicks --out m --ratio nan": "--ratio must be above 1, got nan",
    "compress base.safetensors clicks --out m --ratio 1000": "PlanOptions.ratio must be at most",
    "compress base.safetensors clicks --out m --energy 2": "--energy must be in (0, 1], got 2",
    "compress base.safetensors clicks --out m --bytes 0": "Invalid value for '--bytes'",
    "compress base.safetensors clicks --out m --ratio 2 --policy best": "Invalid value for '--policy'",
    "compress base.safetensors clicks --out m --ratio 2 --basis x": "Invalid value for '--basis'",
    "compress base.safetensors clicks --out m --ratio 2 --activation x": "Invalid value for '--activation'",
    "compress base.safetensors clicks --out m --ratio 2 --method x": "Invalid value for '--method'",
    "compress base.safetensors clicks --out m --ratio 2 --epochs -1": "Invalid value for '--epochs'",
    "compress base.safetensors clicks --out m --ratio 1.3 --skip nothing": "PlanOptions.skip must name layers",
    "compress base.safetensors clicks --out m --ratio 1.3 --set hidden=3": "there is no option 'hidden'",
    "compress base.safetensors clicks --out m --ratio 1.3 --teacher absent": "cannot read 'absent'",
    "compress base.safetensors clicks --out m --plan absent.json": "cannot read 'absent.json'",
    "compress base.safetensors clicks --out m --plan clicks/schema.json": "is not a rank plan",
    "compress base.safetensors clicks --out m --ratio 2 --statistics base.safetensors": "is no statistics file",
    "compress clicks.csv clicks --out m --ratio 2": "'clicks.csv' is not a valid safetensors file",
    "evaluate absent clicks": "cannot read 'absent': No such file or directory",
    "evaluate base.safetensors clicks --split holdout": "Invalid value for '--split'",
    "evaluate clicks clicks": "cannot read 'clicks': Is a directory",
    "evaluate clicks/train-00000.safetensors clicks": "afm-shard",
    "inspect absent": "cannot read 'absent': No such file or directory",
    "inspect clicks.csv": "'clicks.csv' is not a valid safetensors file",
    "prepare absent.csv --out d": "absent.csv is not a file",
    "prepare clicks.csv --out clicks.csv": "--out must be a folder, got the file 'clicks.csv'",
    "prepare clicks.csv --out d --schema absent.json": "cannot read 'absent.json'",
    "prepare clicks.csv --out d --schema clicks.csv": "clicks.csv",
    "prepare clicks.csv --out d --split 0:1:1": "--split must be three whole numbers such as 8:1:1",
    "prepare clicks.csv --out d --ignore colour": "clicks.csv has no column 'colour' to ignore",
    "report clicks --out r --only contrl": "no line has a key that starts with 'contrl'; the keys are: base-judged",
    "synth t.csv --rows 0": "Invalid value for '--rows'",
    "synth t.xlsx": "the output must end in .csv or .tsv, got 't.xlsx'",
    "quickstart --ratio 0.5": "--ratio must be above 1, got 0.5",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_a_person_can_mend_is_one_sentence_and_exit_code_2(home: Home, line: str):
    if not line:
        assert WRONG[line] in home.run("", code=2)[1]
        return
    assert WRONG[line] in home.complaint(line)


def truncated(data: bytes) -> bytes:
    return data[: len(data) - 100]


def altered(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def renamed(data: bytes) -> bytes:
    return data.replace(b'"afm-model"', b'"afm-nodel"').replace(b"afm-shard", b"afm-shart")


@pytest.mark.parametrize("spoil", [truncated, altered, renamed])
@pytest.mark.parametrize("name", ["base.safetensors", "clicks/test-00000.safetensors"])
def test_a_damaged_file_is_refused_by_name(own: Home, spoil, name: str):
    own.path(name).write_bytes(spoil(own.path(name).read_bytes()))
    assert name in own.complaint("evaluate base.safetensors clicks")


def rewrite_shard(path: Path, **tensors: torch.Tensor) -> None:
    """A shard with other tensors, as another program might write it."""
    metadata = {key: value for key, value in afm.SafetensorsFile.open(path).metadata.items() if key != "afm.xxh3"}
    afm.save_tensors(path, {**afm.read_tensors(path), **tensors}, metadata=metadata)


def test_an_id_out_of_range_is_named_with_field_and_cardinality(own: Home):
    shard = own.path("clicks/test-00000.safetensors")
    ids = afm.read_tensors(shard)["ids"].clone()
    ids[5, 0] = 4000
    rewrite_shard(shard, ids=ids)
    told = own.complaint("evaluate base.safetensors clicks")
    assert "field 'user' has id 4000, its ids are 0 to 30" in told


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_dense_value_that_is_not_finite_is_refused(own: Home, value: float):
    shard = own.path("clicks/test-00000.safetensors")
    dense = afm.read_tensors(shard)["dense"].clone()
    dense[3, 0] = value
    rewrite_shard(shard, dense=dense)
    assert "finite" in own.complaint("evaluate base.safetensors clicks")


def test_a_dataset_that_does_not_fit_the_model_is_refused(own: Home):
    own.run("prepare clicks.csv --out other --ignore tags")
    for line in (
        "evaluate base.safetensors other",
        "compress base.safetensors other --ratio 2 --out m.safetensors",
        "train other --out m.safetensors --teacher base.safetensors",
    ):
        assert "tags" in own.complaint(line)


def test_weights_that_are_not_finite_are_refused(own: Home):
    model = afm.load_model("base.safetensors")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    afm.save_model(model, "bad.safetensors")
    assert "finite" in own.complaint("evaluate bad.safetensors clicks")


@pytest.fixture
def small_disk():
    """No file may grow beyond 40 kB: to a program that is as good as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "line",
    [
        "train clicks --set epochs=1 --set embedding_dim=200 --out base.safetensors",
        "prepare big.csv --out clicks",
        "prepare big.csv --out fresh",
        "synth clicks.csv --rows 5000",
    ],
)
def test_a_machine_that_refuses_is_exit_code_1_and_leaves_the_earlier_files(own: Home, line: str, request):
    write_table(own.path("big.csv"), click_rows(6000))
    request.getfixturevalue("small_disk")
    assert "File too large" in own.complaint(line, code=1)
    assert not own.path("fresh").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_is_exit_code_1(own: Home):
    own.path("locked").mkdir(mode=0o500)
    line = f"train clicks {' '.join(TINY)} --set epochs=1 --out locked/m.safetensors"
    assert "Permission denied" in own.run(line, code=1)[1]


def test_a_bug_is_exit_code_1_with_a_traceback(home: Home, monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("lost")

    monkeypatch.setattr(afm, "evaluate", broken)
    _, err = home.run("evaluate base.safetensors clicks", code=1)
    assert "Traceback" in err and "this is a bug in libafm" in err

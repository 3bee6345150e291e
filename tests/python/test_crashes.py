"""SIGKILL at random moments: training and compression go on to the same bytes, a dataset folder is whole or absent.

AFM_KILLS: kills per case. AFM_KILL_SEED: of the moments.
"""

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import afm
import pytest
from afm import commands_models
from afm.prepare import prepare
from home import TINY, Home
from nursery import Nursery
from tables_of_clicks import click_rows, folder_files, write_table

KILLS = int(os.environ.get("AFM_KILLS", "10"))
SEED = int(os.environ.get("AFM_KILL_SEED", "1"))
OFTEN = "--set batch_size=25 --set checkpoint_seconds=0.003"  # several checkpoints within an epoch
SETTINGS = f"{' '.join(TINY)} {OFTEN} --set patience=0"
WIDE = (
    "train clicks --set embedding_dim=8 --set hidden=64,32 --set epochs=2 --set batch_size=300 --out wide.safetensors"
)
SMALLER = "compress wide.safetensors clicks --smaller 3 --epochs 8"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running


def taken(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The bytes of the outputs, which are then removed."""
    found = {name: (folder / name).read_bytes() for name in names}
    for name in names:
        (folder / name).unlink()
    return found


def check_what_is_left(folder: Path, model: str, expected: bytes) -> int:
    """After a kill: the model is the final one or absent, the checkpoint whole or absent. Returns the batches done
    within an epoch.
    """
    if (folder / model).exists():
        assert (folder / model).read_bytes() == expected
    checkpoint = folder / f"{model}.checkpoint"
    return afm.inspect(checkpoint)["metadata"]["position"]["batch"] if checkpoint.exists() else 0


@pytest.mark.parametrize(
    ("line", "outputs"),
    [
        (f"train clicks {SETTINGS} --set epochs=14 --set dropout=0.2", ("m.safetensors",)),
        (f"train clicks {SETTINGS} --set epochs=14 --model dcn --set optimizer=adagrad", ("m.safetensors",)),
        (
            f"compress base.safetensors clicks --ratio 1.3 --epochs 14 {OFTEN}",
            ("m.safetensors", "m.plan.json"),
        ),
        (f"{SMALLER} {OFTEN}", ("m.safetensors", "m.plan.json")),
    ],
    ids=["train-deepfm-adam", "train-dcn-adagrad", "compress", "compress-smaller"],
)
def test_killed_at_random_moments_and_resumed_equals_never_killed(made: Path, nursery: Nursery, line, outputs):
    nursery.run(WIDE, made)
    line = f"{line} --out {outputs[0]}"
    seconds = nursery.run(line, made)
    expected = taken(made, outputs)
    moments, kills, runs, within_an_epoch = random.Random(SEED), 0, 0, 0
    while kills < KILLS or runs == 0:
        child = nursery.start(f"{line} --resume", made)
        if kills < KILLS and child.kill_after(moments.uniform(0, 0.6 * seconds)):
            kills += 1
            within_an_epoch += check_what_is_left(made, outputs[0], expected[outputs[0]]) > 0
            continue
        assert child.wait() == 0, child.told()
        assert taken(made, outputs) == expected
        seconds, runs = 0.7 * seconds, runs + 1  # the machine has become faster
    print(f"{kills} kills, {within_an_epoch} of them within an epoch, {runs} whole runs")
    assert within_an_epoch > 0  # else nothing was shown but restarts between epochs


def test_a_model_that_is_trained_but_not_finished_is_not_written(own: Home, monkeypatch):
    def killed(model: afm.Model) -> afm.Model:
        raise KeyboardInterrupt

    own.run(WIDE)
    own.run(f"{SMALLER} --out whole.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(commands_models, "finished", killed)
        own.run(f"{SMALLER} --out m.safetensors", code=2)
    assert not own.path("m.safetensors").exists()
    own.run(f"{SMALLER} --out m.safetensors --resume")
    assert own.path("m.safetensors").read_bytes() == own.path("whole.safetensors").read_bytes()


OLD, NEW = 1, 2  # seeds of tables


def opens(folder: Path) -> bool:
    """Whether there is a dataset, each split of it."""
    try:
        for split in ("train", "valid", "test"):
            afm.Dataset.open(folder, split)
    except (afm.IoError, afm.FormatError, afm.DataError):
        return False
    return True


@pytest.mark.parametrize("before", [None, OLD], ids=["fresh", "over an earlier dataset"])
def test_prepare_killed_at_random_moments_leaves_a_whole_dataset_or_none(tmp_path, nursery: Nursery, before):
    folder, expected = tmp_path / "clicks", {}
    for seed in (OLD, NEW):  # the same values in another order: a mixture would have one schema
        write_table(tmp_path / f"{seed}.csv", click_rows(12_000, seed))
        seconds = nursery.run(f"prepare {seed}.csv --out whole{seed}", tmp_path)
        expected[seed] = folder_files(tmp_path / f"whole{seed}")
    assert expected[OLD] != expected[NEW]
    moments, kills = random.Random(SEED), 0
    while kills < KILLS:
        if before is not None:
            nursery.run(f"prepare {before}.csv --out clicks", tmp_path)
        child = nursery.start(f"prepare {NEW}.csv --out clicks", tmp_path)
        kills += child.kill_after(moments.uniform(0, 1.1 * seconds))
        if opens(folder):
            whole = [expected[NEW]] if before is None or child.code == 0 else [expected[NEW], expected[before]]
            assert folder_files(folder) in whole
        nursery.run(f"prepare {NEW}.csv --out clicks", tmp_path)
        assert folder_files(folder) == expected[NEW]
        assert [path.name for path in folder.iterdir() if path.is_dir()] == []  # nor what the killed one had begun
        shutil.rmtree(folder)


@pytest.mark.parametrize("moves", range(5))
def test_a_dataset_of_which_some_files_were_replaced_is_none(tmp_path: Path, monkeypatch, moves: int):
    """The moment that a random kill hardly meets: between two renames."""
    for seed in (OLD, NEW):
        write_table(tmp_path / f"{seed}.csv", click_rows(1500, seed))
    prepare(tmp_path / f"{OLD}.csv", tmp_path / "clicks")
    replace, left = Path.replace, iter(range(moves))

    def stopping(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / f"{NEW}.csv", tmp_path / "clicks")
    assert not opens(tmp_path / "clicks")
    monkeypatch.setattr(Path, "replace", replace)
    prepare(tmp_path / f"{NEW}.csv", tmp_path / "clicks")
    assert opens(tmp_path / "clicks")

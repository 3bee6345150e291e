"""A full disk, a read-only one, data that vanishes, two writers: one sentence, and the earlier files as they were."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import afm
import pytest
from afm import fitting
from afm.prepare import only_writer
from home import TINY, Home, files_below
from nursery import Nursery
from tables_of_clicks import click_rows, folder_files, write_table

LIMIT = "size=4m"
TRAIN = f"train clicks {' '.join(TINY)} --set patience=0"
WRITERS = [
    f"{TRAIN} --set epochs=2 --out base.safetensors",
    f"{TRAIN} --set epochs=2 --out fresh.safetensors",
    "compress base.safetensors clicks --ratio 1.3 --epochs 1 --out small.safetensors",
    "compress base.safetensors clicks --ratio 1.3 --epochs 0 --out packed.safetensors",
    "prepare clicks.csv --out clicks",
    "prepare clicks.csv --out fresh",
    "synth clicks.csv --rows 200",
    "pack base.safetensors clicks --out base.safetensors",
    "score packed.safetensors clicks.csv --out scores.txt",
]


@pytest.fixture
def disk(tmp_path: Path, made: Path, monkeypatch, capsys) -> Iterator[Home]:
    """The home on a small disk of its own. Only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", LIMIT, "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a tmpfs")
    try:
        for name, data in files_below(made).items():
            path = folder / Path(name).relative_to(made)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        monkeypatch.chdir(folder)
        home = Home(folder, capsys)
        home.run("pack base.safetensors clicks --out packed.safetensors")
        home.path("scores.txt").write_text("earlier\n")
        yield home
    finally:
        os.chdir("/")
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Home) -> Path:
    """Takes every byte that is left."""
    filler = disk.path("filler")
    with filler.open("wb", buffering=0) as file:
        for piece in (65536, 1):
            while True:
                try:
                    file.write(bytes(piece))
                except OSError:
                    break
    return filler


@pytest.mark.parametrize("line", WRITERS)
def test_a_full_disk_is_one_sentence_and_the_earlier_files_stay(disk: Home, line: str):
    filler = fill(disk)
    assert "No space left on device" in disk.complaint(line, code=1)
    filler.unlink()
    disk.run(line)  # the disk was all that was wrong


class FillsUp:
    """A progress bar under which the disk becomes full after the second epoch."""

    def __init__(self, disk: Home):
        self.disk, self.filler = disk, None

    def __call__(self, progress: afm.Progress) -> None:
        if progress.finished is not None and progress.epoch == 2:
            self.filler = fill(self.disk)


def test_a_disk_that_fills_up_during_training_leaves_a_checkpoint_to_go_on_from(disk: Home, monkeypatch):
    line = f"{TRAIN} --set dropout=0.2 --set epochs=6"
    disk.run(f"{line} --out whole.safetensors")
    bar = FillsUp(disk)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "training_bar", lambda what: nullcontext(bar))
        _, err = disk.run(f"{line} --out parts.safetensors", code=1)
    assert err.splitlines()[-1].startswith("afm: ") and "No space left on device" in err and "Traceback" not in err
    assert len(afm.inspect("parts.safetensors.checkpoint")["metadata"]["position"]["history"]["epochs"]) == 2
    bar.filler.unlink()
    disk.run(f"{line} --out parts.safetensors --resume")
    assert disk.path("parts.safetensors").read_bytes() == disk.path("whole.safetensors").read_bytes()


@pytest.mark.parametrize("line", WRITERS)
def test_a_read_only_disk_is_one_sentence_and_the_earlier_files_stay(disk: Home, line: str):
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    assert "Read-only file system" in disk.complaint(line, code=1)
    subprocess.run(["mount", "-o", "remount,rw", disk.folder], check=True)
    disk.run(line)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)


DATA = ["clicks/train-00000.safetensors", "clicks/valid-00000.safetensors", "clicks/schema.json", "base.safetensors"]


@pytest.mark.parametrize("name", DATA)
def test_a_data_file_that_vanished_is_named(own: Home, name: str):
    own.path(name).unlink()
    told = own.complaint("compress base.safetensors clicks --ratio 1.3 --epochs 0 --out small.safetensors")
    assert name in told


def test_data_that_vanishes_while_a_run_reads_it_changes_nothing(own: Home):
    line = f"{TRAIN} --set epochs=30 --set checkpoint_seconds=0.01 --out m.safetensors"
    with Nursery() as nursery:
        nursery.run(line, own.folder)
        expected = own.path("m.safetensors").read_bytes()
        child = nursery.start(line, own.folder)
        wait_for(own.path("m.safetensors.checkpoint"))
        for path in own.path("clicks").iterdir():
            path.unlink()
        assert child.wait() == 0, child.told()
    assert own.path("m.safetensors").read_bytes() == expected


def test_two_trainings_that_write_one_file_leave_one_of_the_two(own: Home):
    lines = [f"{TRAIN} --set epochs=8 --seed {seed}" for seed in (1, 2)]
    with Nursery() as nursery:
        expected = []
        for line in lines:
            nursery.run(f"{line} --out alone.safetensors", own.folder)
            expected.append(own.path("alone.safetensors").read_bytes())
        assert expected[0] != expected[1]
        children = [nursery.start(f"{line} --out both.safetensors", own.folder) for line in lines]
        assert [child.wait() for child in children] == [0, 0], children[0].told() + children[1].told()
    assert own.path("both.safetensors").read_bytes() in expected


def test_two_preparations_of_one_folder_are_one_that_is_refused_and_one_that_is_whole(tmp_path: Path):
    write_table(tmp_path / "1.csv", click_rows(20_000, 1))
    write_table(tmp_path / "2.csv", click_rows(20_000, 2))
    with Nursery() as nursery:
        for seed in (1, 2):
            nursery.run(f"prepare {seed}.csv --out whole{seed}", tmp_path)
        for _ in range(3):
            children = [nursery.start(f"prepare {seed}.csv --out clicks", tmp_path) for seed in (1, 2)]
            codes = [child.wait() for child in children]
            for child, code in zip(children, codes, strict=True):
                assert code == 0 or "another process is writing the dataset 'clicks'" in child.told()
            assert 0 in codes
            done = [seed for seed, code in zip((1, 2), codes, strict=True) if code == 0]
            assert folder_files(tmp_path / "clicks") in [folder_files(tmp_path / f"whole{seed}") for seed in done]


def test_a_folder_that_another_process_writes_is_refused_with_a_sentence(own: Home):
    with only_writer(own.path("clicks")):
        told = own.complaint("prepare clicks.csv --out clicks")
    assert told == "afm: another process is writing the dataset 'clicks'; wait for it to end"
    own.run("prepare clicks.csv --out clicks")

"""Files of this version in tests/golden/files (tests/reference/make_files.py), which every later one reads to the same
numbers; and files of a newer version, which are refused with its version and ours.
"""

import json
import shutil
from pathlib import Path

import afm
import numpy as np
import pytest
import torch
from afm.cli import run
from afm.prepare import prepare
from safetensors import safe_open
from safetensors.numpy import load_file

FILES = Path(__file__).parents[1] / "golden" / "files"
LOGITS = load_file(FILES / "logits.safetensors")
MODELS = sorted(path.stem for path in FILES.glob("*.safetensors") if path.stem in LOGITS)
TRAINING = {"epochs": 6, "batch_size": 32, "learning_rate": 0.02, "seed": 1}


def split(name: str) -> afm.Dataset:
    return afm.Dataset.open(FILES / "clicks", name)


def closeness(got, name: str) -> float:
    return float(np.abs(np.asarray(got) - LOGITS[name]).max())


def test_every_kind_of_model_is_there_in_every_form_and_says_something():
    assert len(MODELS) == len(LOGITS) == 4 * 5
    assert all(np.ptp(logits) > 0.05 for logits in LOGITS.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_this_version_gives_its_logits(name: str):
    test_set, file = split("test"), FILES / f"{name}.safetensors"
    assert closeness(afm.predict(afm.load_model(file), test_set), name) < 1e-5
    rows = test_set.range(0, len(test_set))
    assert closeness(afm.Scorer(file).score(rows.ids.numpy(), rows.dense.numpy()), name) < 1e-5


def test_a_packed_model_of_this_version_scores_raw_values():
    requests = json.loads((FILES / "requests.json").read_text())
    scores = afm.Scorer(FILES / "packed.safetensors").score_rows(requests["rows"])
    assert scores == pytest.approx(requests["logits"], abs=1e-5)


def test_a_table_gives_the_dataset_of_this_version(tmp_path: Path):
    schema = json.loads((FILES / "clicks" / "schema.json").read_text())
    counted = ("cardinality", "mean", "scale", "vocabulary")
    for field in schema["fields"]:
        for key in counted:
            field.pop(key, None)
    prepare(FILES / "clicks.csv", tmp_path / "clicks", schema=afm.schema_from_json(json.dumps(schema)))
    for name in ("train", "valid", "test"):
        ours, then = (afm.Dataset.open(folder / "clicks", name) for folder in (tmp_path, FILES))
        a, b = ours.range(0, len(ours)), then.range(0, len(then))
        assert torch.equal(a.ids, b.ids) and torch.equal(a.label, b.label) and torch.allclose(a.dense, b.dense)
    assert afm.read_schema(tmp_path / "clicks" / "schema.json") == afm.read_schema(FILES / "clicks" / "schema.json")


def test_statistics_and_a_plan_of_this_version_make_the_model_of_this_version():
    base, statistics = (
        afm.load_model(FILES / "deepfm.safetensors"),
        afm.Statistics.load(FILES / "statistics.safetensors"),
    )
    small = afm.factorize(base, statistics, afm.read_plan(FILES / "plan.json"))
    assert closeness(afm.predict(afm.fold(small).model, split("test")), "deepfm_int4") < 1e-4


def test_a_run_goes_on_from_a_checkpoint_of_this_version(tmp_path: Path):
    checkpoint = shutil.copy(FILES / "run.checkpoint", tmp_path / "run.checkpoint")
    torch.manual_seed(1)
    model = afm.make_model("deepfm", split("train").schema, embedding_dim=4, hidden=[8, 6])
    history = afm.train(model, split("train"), split("valid"), **TRAINING, checkpoint=str(checkpoint), resume=True)
    assert len(history.epochs) > 2
    assert closeness(afm.predict(model, split("test")), "deepfm") < 1e-4


def newer(file: Path, to: Path) -> int:
    """The same file as the next version would write it; returns that version."""
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        content["version"] += 1
        to.write_text(json.dumps(content))
        return content["version"]
    with safe_open(file, "np") as opened:
        metadata = opened.metadata()
    version = int(metadata["version"]) + 1
    kept = {key: value for key, value in metadata.items() if not key.startswith("afm.xxh3")}
    afm.save_tensors(to, afm.read_tensors(file), metadata={**kept, "version": str(version)})
    return version


REFUSED = {
    "deepfm.safetensors": lambda file, folder: afm.load_model(file),
    "packed.safetensors": lambda file, folder: afm.Scorer(file),
    "clicks/train-00000.safetensors": lambda file, folder: afm.Dataset.open(folder / "clicks", "train"),
    "clicks/vocabulary.safetensors": lambda file, folder: afm.Encoder.open(file, split("test").schema),
    "statistics.safetensors": lambda file, folder: afm.Statistics.load(file),
    "plan.json": lambda file, folder: afm.read_plan(file),
    "run.checkpoint": lambda file, folder: afm.train(
        afm.make_model("deepfm", split("train").schema, embedding_dim=4, hidden=[8, 6]),
        split("train"),
        split("valid"),
        **TRAINING,
        checkpoint=str(file),
        resume=True,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_newer_file_is_refused_with_its_version_and_ours(name: str, tmp_path: Path):
    shutil.copytree(FILES, tmp_path / "files")
    file = tmp_path / "files" / name
    version = newer(FILES / name, file)
    with pytest.raises(afm.FormatError) as refusal:
        REFUSED[name](file, tmp_path / "files")
    assert f" {version}" in str(refusal.value) and f" {version - 1}" in str(refusal.value)
    assert file.name in str(refusal.value)


def test_the_command_line_reads_files_of_this_version(capsys: pytest.CaptureFixture):
    assert run(["evaluate", str(FILES / "deepfm_int4.safetensors"), str(FILES / "clicks"), "--json"]) == 0
    assert run(["inspect", str(FILES / "run.checkpoint")]) == 0

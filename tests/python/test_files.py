"""Files: safetensors in both directions, damage, what a file says of itself."""

import json

import afm
import pytest
import safetensors.torch
import torch


def test_pythons_safetensors_opens_model_files(model, tmp_path):
    path = tmp_path / "model.safetensors"
    afm.save_model(model, path)
    theirs = safetensors.torch.load_file(path)
    state = model.state_dict()
    golden = {"golden.ids", "golden.dense", "golden.logits"}
    assert set(theirs) == set(state) | golden
    assert all(torch.equal(theirs[name], state[name]) for name in state)
    with torch.no_grad():
        logits = model.eval()(theirs["golden.ids"], theirs["golden.dense"])
    assert torch.equal(logits, theirs["golden.logits"])
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["kind"] == "afm-model" and json.loads(metadata["options"])["embedding_dim"] == 4


def test_pythons_safetensors_opens_dataset_shards(train_set, tmp_path):
    rows = train_set.range(0, 100)
    writer = afm.DatasetWriter(tmp_path, train_set.schema, "train")
    writer.append(rows.ids, rows.dense, label=rows.label)
    writer.finish()
    theirs = safetensors.torch.load_file(tmp_path / "train-00000.safetensors")
    assert torch.equal(theirs["ids"], rows.ids) and theirs["ids"].dtype == torch.int32
    assert torch.equal(theirs["dense"], rows.dense) and torch.equal(theirs["label"], rows.label)


def test_files_of_pythons_safetensors_are_read(tmp_path):
    tensors = {
        "half": torch.randn(3, 5).half(),
        "brain": torch.randn(7).bfloat16(),
        "long": torch.arange(4),
        "flag": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"who": "someone else"})
    ours = afm.read_tensors(path)
    assert set(ours) == set(tensors)
    for name, tensor in tensors.items():
        assert ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor)
    seen = afm.inspect(path)
    assert seen["kind"] is None and seen["metadata"] == {"who": "someone else"}
    assert seen["tensors"]["half"] == {"dtype": "F16", "shape": [3, 5]}


def test_our_tensors_are_read_by_python_and_back(tmp_path):
    tensors = {"a": torch.randn(4, 3).T, "b": torch.arange(6, dtype=torch.int32)}
    path = tmp_path / "ours.safetensors"
    afm.save_tensors(path, tensors, metadata={"kind": "test"})
    for read in (afm.read_tensors, safetensors.torch.load_file):
        again = read(path)
        assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert afm.inspect(path)["kind"] == "test"


def test_a_damaged_model_file_is_refused(model, tmp_path):
    path = tmp_path / "model.safetensors"
    afm.save_model(model, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(afm.FormatError, match="model.safetensors"):
        afm.load_model(path)
    altered = bytearray(whole)
    altered[-10] ^= 1
    path.write_bytes(altered)
    with pytest.raises(afm.FormatError, match="checksum"):
        afm.load_model(path)
    with pytest.raises(afm.FormatError, match="checksum"):
        afm.inspect(path)
    assert afm.inspect(path, verify=False)["kind"] == "afm-model"


def test_a_dataset_shard_is_no_model(train_set, tmp_path):
    rows = train_set.range(0, 100)
    writer = afm.DatasetWriter(tmp_path, train_set.schema, "train")
    writer.append(rows.ids, rows.dense, label=rows.label)
    writer.finish()
    with pytest.raises(afm.FormatError):
        afm.load_model(tmp_path / "train-00000.safetensors")


def test_an_unwritable_folder_is_an_io_error_and_leaves_nothing(model, tmp_path):
    with pytest.raises(afm.IoError, match="cannot write"):
        afm.save_model(model, tmp_path / "missing" / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_loaded_model_answers_like_the_saved_one(model, batch, tmp_path):
    path = tmp_path / "model.safetensors"
    model.get_buffer("mlp.norms.0.running_mean").fill_(0.25)
    afm.save_model(model, path)
    loaded = afm.load_model(path)
    assert not loaded.training and loaded.options == model.options
    assert torch.equal(loaded(batch.ids, batch.dense), model.eval()(batch.ids, batch.dense))

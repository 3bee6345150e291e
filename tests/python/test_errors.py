"""C++ exceptions as Python ones."""

import pickle

import afm
import pytest
import torch


def test_the_classes_fit_pythons_own():
    assert issubclass(afm.DataError, ValueError)
    assert issubclass(afm.FormatError, ValueError)
    assert issubclass(afm.IoError, OSError)
    assert all(issubclass(error, afm.Error) for error in (afm.DataError, afm.FormatError, afm.IoError))
    assert issubclass(afm.Error, Exception) and not issubclass(afm.Error, ValueError)


def test_they_can_be_pickled():
    assert type(pickle.loads(pickle.dumps(afm.DataError("no rows")))) is afm.DataError


def test_a_missing_file_is_an_io_error(tmp_path):
    with pytest.raises(afm.IoError, match=r"cannot read '.*nowhere.safetensors': No such file or directory"):
        afm.load_model(tmp_path / "nowhere.safetensors")


def test_a_foreign_file_is_a_format_error(tmp_path):
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(b"not a model file at all")
    with pytest.raises(afm.FormatError, match="is not a valid safetensors file"):
        afm.load_model(path)


def test_an_id_out_of_range_is_a_data_error_with_field_id_and_cardinality(model):
    ids = torch.zeros(2, 5, dtype=torch.int32)
    ids[1, 1] = 40
    with pytest.raises(afm.DataError) as error:
        model(ids, torch.zeros(2, 1))
    assert all(word in str(error.value) for word in ("item", "40"))


def test_wrong_shapes_are_refused_without_a_backtrace(model):
    with pytest.raises(Exception) as error:
        model(torch.zeros(2, 3, dtype=torch.int32), torch.zeros(2, 1))
    assert type(error.value) in (afm.DataError, RuntimeError, ValueError)
    assert "Exception raised from" not in str(error.value)


def test_an_index_beyond_the_dataset(train_set):
    with pytest.raises(IndexError):
        train_set.rows(torch.tensor([len(train_set)]))


def test_an_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="split must be one of train, valid, test, got 'tets'"):
        afm.Dataset.open(tmp_path, "tets")


def test_another_torch_is_refused_with_what_to_do():
    from afm import _torch_check

    _torch_check.check("2.13.0+cpu", built="2.13.0")
    with pytest.raises(ImportError) as error:
        _torch_check.check("2.12.1+cu130", built="2.13.0")
    assert "built against torch 2.13.0, but torch 2.12.1 is installed" in str(error.value)
    assert "pip install --no-build-isolation ." in str(error.value)

"""afm.save_compressed and afm.load_compressed: models whose shapes changed, without code in the file."""

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, Holder, Interactions, Ranker, made
from torch import nn


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("options", [{}, {"basis": "shared"}, {"activation": "relu"}])
def test_saving_and_loading_into_a_fresh_model(ids, tmp_path, padding_idx, options):
    model = made(Ranker, padding_idx=padding_idx)
    small, _ = afm.compress(model, [ids], energy=0.6, **options)
    afm.save_compressed(small, tmp_path / "small.safetensors")
    fresh = Ranker(padding_idx=padding_idx)
    loaded = afm.load_compressed(fresh, tmp_path / "small.safetensors")
    assert torch.equal(loaded(ids), small(ids))
    assert loaded.again is loaded.blocks[0] and type(fresh.again) is nn.Linear
    trainable = [name for name, p in small.named_parameters() if p.requires_grad]
    assert [name for name, p in loaded.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize("activation", ["none", "shifted_relu"])
def test_convolutions_are_loaded(ids, tmp_path, activation):
    plan = {"cin": afm.LayerPlan([4], activation=activation)}
    small, _ = afm.compress(made(Interactions), [ids], plan=plan)
    afm.save_compressed(small, tmp_path / "small.safetensors")
    loaded = afm.load_compressed(Interactions(), tmp_path / "small.safetensors")
    assert torch.equal(loaded(ids), small(ids)) and loaded.cin.activation == small.cin.activation


def test_bags_and_half_precision_are_loaded(tmp_path):
    model, ids = made(nn.EmbeddingBag, 50, 8, mode="sum").half(), torch.randint(50, (30, 4))
    small, _ = afm.compress(model, [ids], plan={"": 3})
    afm.save_compressed(small, tmp_path / "small.safetensors")
    loaded = afm.load_compressed(nn.EmbeddingBag(50, 8, mode="sum").half(), tmp_path / "small.safetensors")
    assert torch.equal(loaded(ids), small(ids)) and loaded(ids).dtype == torch.float16


def test_a_tensor_of_several_names_is_written_once(ids, tmp_path):
    model = made(Ranker)
    model.tables["f1"] = model.tables["f0"]
    small, _ = afm.compress(model, [ids], plan={"tables.f0": 3})
    afm.save_compressed(small, tmp_path / "small.safetensors")
    names = afm.read_tensors(tmp_path / "small.safetensors").keys()
    assert "tables.f0.rows.weight" in names and "tables.f1.rows.weight" not in names
    fresh = Ranker()
    fresh.tables["f1"] = fresh.tables["f0"]
    loaded = afm.load_compressed(fresh, tmp_path / "small.safetensors")
    assert loaded.tables["f1"] is loaded.tables["f0"] and torch.equal(loaded(ids), small(ids))


def test_what_a_fresh_model_holds_is_renewed(ids, tmp_path):
    small, _ = afm.compress(made(Ranker), [ids], plan={"tables.f0": 3})
    afm.save_compressed(small, tmp_path / "small.safetensors")
    fresh = Ranker()
    fresh.penalised = list(fresh.tables.parameters())
    fresh.optimizer = torch.optim.Adam(fresh.parameters())
    loaded = afm.load_compressed(fresh, tmp_path / "small.safetensors")
    table = loaded.tables["f0"]
    assert loaded.penalised[0] is table.rows.weight and loaded.penalised[1] is table.basis.weight
    afm.check_optimizer(loaded, loaded.optimizer)


def test_a_file_that_does_not_fit_lists_every_name(ids, tmp_path):
    path = tmp_path / "small.safetensors"
    small, _ = afm.compress(made(Ranker), [ids], plan={"tower.0": 4})
    afm.save_compressed(small, path)
    other = Ranker()
    other.head = nn.Linear(24, 2)
    other.extra = nn.Linear(3, 3)
    del other.tables["f2"]
    with pytest.raises(afm.FormatError) as error:
        afm.load_compressed(other, path)
    for part in ("missing: extra.bias, extra.weight", "surplus: tables.f2.weight", "head.weight ([1, 24] for [2, 24])"):
        assert part in str(error.value)
    with pytest.raises(afm.FormatError, match=r"no dense layer of these names: tower\.0"):
        afm.load_compressed(Holder(), path)
    afm.save_tensors(path, {"x": torch.zeros(1)})
    with pytest.raises(afm.FormatError, match="must be of kind afm-compressed-module"):
        afm.load_compressed(other, path)


def test_a_state_with_more_than_tensors_is_refused(ids, tmp_path):
    class Stateful(Ranker):
        def get_extra_state(self):
            return {"epoch": 3}

        def set_extra_state(self, state):
            pass

    small, _ = afm.compress(made(Stateful), [ids], plan={"tower.0": 4})
    with pytest.raises(ValueError, match="must hold tensors only, not _extra_state"):
        afm.save_compressed(small, tmp_path / "small.safetensors")

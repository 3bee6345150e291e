"""Integers in model files, decoded by another reader from the words of model_file.h alone."""

import afm
import pytest
import safetensors.torch
import torch
from afm.plan import LayerPlan


def decoded(codes: torch.Tensor, count: int) -> torch.Tensor:
    """Codes of either kind as floats [count]."""
    if codes.dtype == torch.int8:
        assert codes.shape == (count,)
        return codes.float()
    assert codes.dtype == torch.uint8 and codes.shape == ((count + 1) // 2,)
    halves = torch.stack([codes & 15, codes >> 4], 1).flatten()[:count].float()
    return torch.where(halves > 7, halves - 16, halves)


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("scale", ["row", "column"])
def test_a_file_of_integers_is_what_its_description_says(schema, batch, tmp_path, bits, scale):
    torch.manual_seed(1)
    fields = len(schema.cardinalities)
    ranks = {
        "embedding": LayerPlan([2] * fields, bits=bits, scale=scale),
        "mlp.layers.0": LayerPlan(bits=bits, scale=scale),
        "mlp.layers.1": LayerPlan([3], bits=bits, scale=scale),
    }
    options = {"embedding_dim": 4, "hidden": [16, 8], "init_std": 0.1}
    model = afm.DeepFM(schema, ranks=ranks, **options).eval()
    path = tmp_path / "model.safetensors"
    afm.save_model(model, path)
    file = safetensors.torch.load_file(path)
    file = {name: tensor for name, tensor in file.items() if not name.startswith("golden.")}
    assert sum(tensor.nbytes for tensor in file.values()) == afm.byte_count(model)

    plain = afm.DeepFM(
        schema, ranks={"embedding": LayerPlan([2] * fields), "mlp.layers.1": LayerPlan([3])}, **options
    ).eval()
    state = dict(plain.state_dict())
    for name in ("mlp.layers.0.weight", "mlp.layers.1.down", "mlp.layers.1.up"):
        codes = decoded(file.pop(f"{name}.codes"), state[name].numel()).view(state[name].shape)
        each = file.pop(f"{name}.scale").float()
        state[name] = codes * (each[:, None] if scale == "row" else each)
    # Rows of two values and a wide weight, one scale per field for the wide weights behind the others.
    name, rows = "embedding.latent", sum(schema.cardinalities)
    codes = decoded(file.pop(f"{name}.codes"), 3 * rows).view(rows, 3)
    each = file.pop(f"{name}.scale").float()
    field = torch.repeat_interleave(torch.arange(fields), torch.tensor(schema.cardinalities))
    values = each[:-fields].view(rows, 1) if scale == "row" else each[:-fields].view(fields, 2)[field]
    state[name] = torch.cat([codes[:, :2] * values, codes[:, 2:] * each[-fields:][field][:, None]], 1).flatten()
    state.update(file)

    plain.load_state_dict(state)
    with torch.no_grad():
        expected = model(batch.ids, batch.dense)
        assert torch.equal(plain(batch.ids, batch.dense), expected)
        assert torch.equal(afm.load_model(path)(batch.ids, batch.dense), expected)

"""A C++ model as a torch.nn.Module."""

import copy
import io
import pickle

import afm
import pytest
import torch

ALL_MODELS = [
    (afm.DeepFM, {}),
    (afm.DCN, {"cross_layers": 2}),
    (afm.DCN, {"cross_layers": 2, "cross": "matrix"}),
    (afm.WideDeep, {}),
]


def logits_of_cpp(model: afm.Model, dataset: afm.Dataset) -> torch.Tensor:
    """What C++ computes, past the wrapper."""
    return afm.predict(model, dataset)


@pytest.fixture(params=ALL_MODELS, ids=["deepfm", "dcn", "dcn_matrix", "wide_deep"])
def any_model(request, schema) -> afm.Model:
    cls, options = request.param
    torch.manual_seed(3)
    return cls(schema, embedding_dim=4, hidden=[16, 8], **options)


def test_state_dict_has_the_paths_and_values_of_the_model_file(any_model, tmp_path):
    afm.save_model(any_model, tmp_path / "model.safetensors")
    written = afm.read_tensors(tmp_path / "model.safetensors")
    state = any_model.state_dict()
    assert set(state) == {name for name in written if not name.startswith("golden.")}
    assert all(torch.equal(state[name], written[name]) for name in state)


def test_parameters_are_parameters(any_model):
    parameters = dict(any_model.named_parameters())
    assert parameters and all(isinstance(value, torch.nn.Parameter) for value in parameters.values())
    assert all(value.requires_grad and value.is_leaf for value in parameters.values())
    assert sum(value.numel() for value in parameters.values()) == afm.parameter_count(any_model)
    assert "mlp.layers.0.weight" in parameters
    assert "mlp.norms.0.running_mean" in dict(any_model.named_buffers())


def test_a_step_of_a_python_optimizer_changes_what_cpp_computes(model, batch, valid_set):
    before = logits_of_cpp(model, valid_set)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    afm.logloss_of(model(batch.ids, batch.dense), batch.label).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    after = logits_of_cpp(model, valid_set)
    assert (before - after).abs().max() > 1e-3
    model.eval()
    whole = valid_set.range(0, len(valid_set))
    torch.testing.assert_close(model(whole.ids, whole.dense), after)


def test_gradients_are_those_of_finite_differences(schema, batch):
    model = afm.DCN(schema, embedding_dim=3, hidden=[5], batch_norm=False, init_std=0.5).double()
    weight = model.get_parameter("mlp.layers.0.weight")

    def loss() -> torch.Tensor:
        return afm.logloss_of(model(batch.ids, batch.dense.double()), batch.label.double())

    loss().backward()
    step = 1e-6
    with torch.no_grad():
        weight[2, 1] += step
        above = loss()
        weight[2, 1] -= 2 * step
        below = loss()
    assert weight.grad[2, 1].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-5, abs=1e-9)


def test_double_converts_cpp_too_and_keeps_the_tensors(model, batch):
    before = dict(model.named_parameters()) | dict(model.named_buffers())
    single = model.eval()(batch.ids, batch.dense)
    assert model.double() is model
    after = dict(model.named_parameters()) | dict(model.named_buffers())
    assert all(before[name] is after[name] for name in before)
    assert model.get_parameter("mlp.layers.0.weight").dtype == torch.float64
    assert model.get_buffer("mlp.norms.0.running_mean").dtype == torch.float64
    assert model.get_buffer("mlp.norms.0.num_batches_tracked").dtype == torch.int64
    logits = model(batch.ids, batch.dense.double())
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), single, rtol=1e-4, atol=1e-5)


def test_an_optimizer_made_before_a_conversion_still_works(model, batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.to(torch.float64)
    afm.logloss_of(model(batch.ids, batch.dense.double()), batch.label.double()).backward()
    before = model.get_parameter("mlp.layers.0.weight").clone()
    optimizer.step()
    assert not torch.equal(before, model.get_parameter("mlp.layers.0.weight"))


def test_buffers_follow_cpp_training(model, batch):
    before = model.get_buffer("mlp.norms.0.running_mean").clone()
    model.train()(batch.ids, batch.dense)
    assert not torch.equal(before, model.get_buffer("mlp.norms.0.running_mean"))
    assert model.get_buffer("mlp.norms.0.num_batches_tracked").item() == 1


def test_train_and_eval_reach_cpp(schema, batch):
    model = afm.DeepFM(schema, embedding_dim=4, hidden=[64], dropout=0.5, init_std=0.5)
    assert model.training and model.mlp.training
    assert not torch.equal(model(batch.ids, batch.dense), model(batch.ids, batch.dense))
    assert model.eval() is model
    assert not model.training and not model.mlp.norms.training
    assert torch.equal(model(batch.ids, batch.dense), model(batch.ids, batch.dense))
    model.train()
    model.mlp.eval()  # a part alone
    assert model.training and not model.mlp.training
    counted = model.get_buffer("mlp.norms.0.num_batches_tracked").clone()
    model(batch.ids, batch.dense)
    assert torch.equal(counted, model.get_buffer("mlp.norms.0.num_batches_tracked"))


def test_deepcopy_is_another_model_with_the_same_answers(any_model, batch):
    any_model.eval()
    any_model.get_parameter("mlp.layers.0.weight").requires_grad_(False)
    any_model.note = ["kept"]
    seed = torch.get_rng_state()
    copied = copy.deepcopy(any_model)
    assert torch.equal(seed, torch.get_rng_state())
    assert type(copied) is type(any_model) and copied.note == ["kept"] and not copied.training
    assert not copied.get_parameter("mlp.layers.0.weight").requires_grad
    assert torch.equal(copied(batch.ids, batch.dense), any_model(batch.ids, batch.dense))
    with torch.no_grad():
        copied.get_parameter("mlp.layers.0.bias").add_(1.0)
    assert not torch.equal(copied(batch.ids, batch.dense), any_model(batch.ids, batch.dense))


def test_an_optimizer_copied_along_holds_the_copys_parameters(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    held = copied_optimizer.param_groups[0]["params"]
    assert all(mine is theirs for mine, theirs in zip(held, copied.parameters(), strict=True))


def through_pickle(model: afm.Model) -> afm.Model:
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model: afm.Model) -> afm.Model:
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=False)


@pytest.mark.parametrize("carry", [through_pickle, through_torch_save, copy.deepcopy])
def test_models_travel(any_model, batch, carry):
    any_model.double().eval()
    any_model.notes = {"trained": "never"}
    with pytest.raises(TypeError):
        any_model.notes["trained"] = "twice"
    again = carry(any_model)
    assert again.notes == {"trained": "never"}
    assert again.options == any_model.options and not again.training
    assert torch.equal(again(batch.ids, batch.dense.double()), any_model(batch.ids, batch.dense.double()))


def test_a_factorized_model_travels(model, batch, train_set):
    plan = {"embedding": [2, 0, 1], "mlp.layers.1": 3}
    small = afm.factorize(model, afm.collect_statistics(model, train_set), plan)
    again = copy.deepcopy(through_pickle(small)).eval()
    assert {name: item.ranks for name, item in again.ranks.items()} == {"embedding": [2, 0, 1], "mlp.layers.1": [3]}
    assert torch.equal(again(batch.ids, batch.dense), small.eval()(batch.ids, batch.dense))


def test_state_dict_moves_values_between_models(any_model, batch):
    torch.manual_seed(9)
    other = type(any_model)(any_model.schema, **options_of(any_model))
    assert not torch.equal(other.eval()(batch.ids, batch.dense), any_model.eval()(batch.ids, batch.dense))
    other.load_state_dict(any_model.state_dict())
    assert torch.equal(other(batch.ids, batch.dense), any_model(batch.ids, batch.dense))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


def options_of(model: afm.Model) -> dict:
    return {field.name: getattr(model.options, field.name) for field in type(model.options).fields()}


def test_assigning_a_state_dict_is_refused(model):
    with pytest.raises(RuntimeError, match=r"load_state_dict\(assign=True\) is not possible for a libafm model"):
        model.load_state_dict(model.state_dict(), assign=True)
    with pytest.raises(RuntimeError, match=r"load_state_dict\(assign=True\) is not possible for a libafm model"):
        model.mlp.load_state_dict(model.mlp.state_dict(), assign=True)


def test_functional_call_is_refused_and_leaves_the_model_whole(model, batch):
    values = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    with pytest.raises(RuntimeError, match="of a libafm model was replaced by another tensor"):
        torch.func.functional_call(model, values, (batch.ids, batch.dense))
    model(batch.ids, batch.dense)


def test_a_replaced_tensor_is_noticed_everywhere(model, train_set, valid_set, tmp_path):
    model.mlp.head._parameters["weight"] = torch.nn.Parameter(torch.zeros(1, 8))
    for use in (
        lambda: afm.evaluate(model, valid_set),
        lambda: afm.train(model, train_set, valid_set, epochs=1),
        lambda: afm.save_model(model, tmp_path / "model.safetensors"),
        lambda: copy.deepcopy(model),
    ):
        with pytest.raises(RuntimeError, match="'mlp.head.weight' of a libafm model was replaced"):
            use()
    assert not (tmp_path / "model.safetensors").exists()


def test_the_tree_is_fixed(model):
    with pytest.raises(RuntimeError, match="setting bias is not possible"):
        model.bias = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="setting mlp is not possible"):
        model.mlp = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="setting extra is not possible"):
        model.extra = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="deleting bias is not possible"):
        del model.bias
    with pytest.raises(RuntimeError, match="register_buffer is not possible"):
        model.register_buffer("seen", torch.zeros(1))
    with pytest.raises(RuntimeError, match="a hook on a part is not possible"):
        model.mlp.register_forward_hook(print)
    with pytest.raises(RuntimeError, match="copying or pickling a part is not possible"):
        copy.deepcopy(model.mlp)
    with pytest.raises(NotImplementedError, match="only the whole model can be called"):
        model.mlp(torch.zeros(1, 4))


def test_a_device_that_cannot_compute_is_refused_before_anything_changes(model, batch):
    before = model.eval()(batch.ids, batch.dense)
    with pytest.raises(RuntimeError, match="a tensor on meta of type Tensor is not possible for a libafm model"):
        model.to("meta")
    assert torch.equal(before, model(batch.ids, batch.dense))


def test_what_is_no_libafm_model_is_a_type_error(valid_set):
    with pytest.raises(TypeError, match=r"model must be a libafm model \(deepfm, dcn, wide_deep\), got Linear"):
        afm.evaluate(torch.nn.Linear(1, 1), valid_set)


def test_hooks_on_the_whole_model_run(model, batch):
    seen = []
    model.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    model(batch.ids, batch.dense)
    assert seen == [torch.Size([64])]


def test_a_model_is_a_part_of_a_larger_one(model, batch):
    class Ranker(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ctr = model
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, batch: afm.Batch) -> torch.Tensor:
            return self.scale * self.ctr(batch.ids, batch.dense)

    ranker = Ranker().double().eval()
    assert not model.training
    assert "ctr.mlp.head.weight" in ranker.state_dict()
    values = {name: value.clone() for name, value in ranker.state_dict().items()}
    with pytest.raises(RuntimeError, match="replaced by another tensor"):
        torch.func.functional_call(ranker, values, (batch,))


def test_options_schema_and_ranks_are_shown(model, schema):
    assert model.options == afm.DeepFMOptions(embedding_dim=4, hidden=[16, 8], init_std=0.1)
    assert model.schema == schema and model.device == torch.device("cpu") and model.ranks == {}
    assert repr(model).startswith("DeepFM(")
    assert "(mlp): Mlp(" in repr(model)
    assert "Linear(in_features=16, out_features=8, bias=true)" in repr(model)


def test_a_model_is_built_by_name_and_with_ranks(schema):
    model = afm.make_model("wide_deep", schema, hidden=[6], ranks={"mlp.layers.0": 2})
    assert isinstance(model, afm.WideDeep)
    assert model.get_parameter("mlp.layers.0.down").shape[0] == 2
    with pytest.raises(ValueError, match="model must be one of"):
        afm.make_model("deepfn", schema)
    with pytest.raises(ValueError, match="nonsense"):
        afm.DeepFM(schema, ranks={"nonsense": 3})


def test_sizes_add_up(any_model):
    groups = afm.size_by_group(any_model)
    assert sum(group.parameters for group in groups) == afm.parameter_count(any_model)
    assert sum(group.bytes for group in groups) == afm.byte_count(any_model)

"""afm.compress: what real models do with their layers, handled, or left alone with a sentence that says why."""

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, Holder, Interactions, Ranker, full_ranks, made, spread_error
from torch import nn


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


def reasons(model, forward=None):
    _, report = afm.compress(model, [torch.randn(64, 6)], plan={"first": 2}, forward=forward)
    return report.left_alone


def test_one_module_under_two_names_becomes_one_new_module(ids):
    small, report = afm.compress(made(Ranker), [ids], plan={"again": 5})
    assert small.again is small.blocks[0] and small.again.rank == 5
    assert list(report.plan) == ["blocks.0"]


def test_a_layer_used_twice_has_the_moments_of_both_uses(ids):
    model = made(Ranker)
    outputs = []
    hook = model.again.register_forward_hook(lambda _m, _i, output: outputs.append(output.detach().clone()))
    model(ids)
    hook.remove()
    _, report = afm.compress(model, [ids], plan={"again": 5})
    both = torch.cat(outputs).double()
    spectrum = torch.linalg.eigvalsh(torch.cov(both.T, correction=0)).flip(0)
    line = next(layer for layer in report.layers if layer.name == "blocks.0")
    assert line.predicted_error == pytest.approx(float(spectrum[5:].sum()), rel=1e-4)
    alone = torch.linalg.eigvalsh(torch.cov(outputs[0].double().T, correction=0)).flip(0)
    assert line.predicted_error != pytest.approx(float(alone[5:].sum()), rel=1e-2)


def test_more_outputs_than_inputs_have_no_error_at_full_rank_whatever_the_means_of_their_uses():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Linear(112, 480)

        def forward(self, x):
            return self.wide(x), self.wide(x + 1.0)

    x = torch.randn(1000, 112)
    small, report = afm.compress(made(Twice), [x, x + 1], plan={"wide": 112})
    energy = float(torch.cat(small(x)).detach().double().square().sum(1).mean())
    assert report.layers[0].predicted_error < 1e-12 * energy  # 1e-7 from products in float32


class Extended(nn.Linear):
    def __init__(self):
        super().__init__(9, 4)
        self.scale = nn.Parameter(torch.ones(4))


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.EmbeddingBag(9, 4, mode="max"), "mode='max' is not linear"),
        (lambda: nn.Bilinear(4, 4, 4), "nn.Bilinear is not supported"),
        (lambda: nn.Conv1d(9, 4, 3), "no convolution of width 1"),
        (lambda: nn.Conv1d(8, 4, 1, groups=2), "in one group"),
        (lambda: nn.Embedding(9, 4, max_norm=1.0), "max_norm"),
        (lambda: nn.Embedding(9, 4, sparse=True), "sparse=True"),
        (lambda: nn.EmbeddingBag(9, 4, sparse=True), "sparse=True"),
        (lambda: nn.Linear(9, 4), "not reached: no batch went through it"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(9, 4)), "computed from other parameters"),
        (Extended, "Extended has more tensors than weight and bias"),
        (lambda: Scaled(9, 4), "Scaled has a forward of its own"),
    ],
)
def test_what_cannot_be_a_pair_is_left_alone_with_the_reason(layer, reason):
    model = Holder(other=layer())
    assert reason in reasons(model)["other"]
    with pytest.raises(ValueError, match=r"'other', which must be left alone: .*" + reason.split()[0]):
        afm.compress(model, [torch.randn(64, 6)], plan={"other": 2})


def test_a_layer_with_hooks_or_a_forward_put_onto_it_is_left_alone():
    model = Holder(hooked=nn.Linear(4, 4), patched=nn.Linear(4, 4))
    model.hooked.register_forward_hook(lambda *_: None)
    model.patched.forward = lambda x: x
    left = reasons(model)
    assert "it has hooks" in left["hooked"] and "has a forward of its own" in left["patched"]


def test_kernels_that_are_in_no_layer_are_listed_once():
    model = Holder(gru=nn.GRU(5, 5), norm=nn.LayerNorm(7), convolution=nn.Conv2d(3, 4, 2))
    model.kernels = nn.ParameterList([nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(1, 9))])
    left = reasons(model)
    assert list(left) == ["gru.weight_ih_l0", "gru.weight_hh_l0", "convolution.weight", "kernels.0"]
    assert left["kernels.0"].startswith("a parameter of ParameterList") and "GRU" in left["gru.weight_hh_l0"]


def test_a_layer_may_be_called_weight(ids):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Linear(6, 16)
            self.bias = nn.ModuleList([nn.Linear(16, 16)])

        def forward(self, x):
            return self.bias[0](torch.relu(self.weight(x)))

    model, x = made(Attention), torch.randn(64, 6)
    small, report = afm.compress(model, [x], plan={"weight": 6, "bias.0": 16})
    assert isinstance(small.weight, afm.FactorizedLinear) and spread_error(model, small, x) < 1e-4
    assert report.left_alone == {}


def test_heads_of_one_output_and_tables_of_width_one_stay_dense(ids):
    model = made(Ranker)
    model.tables["f0"] = nn.Embedding(IDS, 1)
    model.tower[0] = nn.Linear(17, 32)
    small, report = afm.compress(model, [ids], energy=0.3)
    dense = {layer.name for layer in report.layers if layer.rank is None}
    assert {"head", "tables.f0"} <= dense and type(small.head) is nn.Linear


def test_a_lazy_model_is_refused():
    with pytest.raises(ValueError, match=r"the parameters other\.weight, other\.bias have no values yet"):
        reasons(Holder(other=nn.LazyLinear(4)))


def test_a_model_without_any_layer_is_refused_with_the_reasons():
    with pytest.raises(ValueError, match="become a factor pair: other: nn.Bilinear is not supported"):
        afm.compress(nn.ModuleDict({"other": nn.Bilinear(4, 4, 4)}), [], ratio=2)


def test_a_model_of_libafm_is_sent_to_its_own_functions(model, train_set):
    with pytest.raises(TypeError, match="for ours: collect_statistics, plan_ranks, factorize"):
        afm.compress(model, [], ratio=2)


def test_tied_weights_are_left_alone():
    model = Holder(a=nn.Embedding(9, 4), b=nn.Linear(4, 9))
    model.b.weight = model.a.weight
    assert reasons(model) == {"a": "its weight is shared by a, b", "b": "its weight is shared by a, b"}


def test_attention_keeps_its_projections_and_says_so():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(6, 16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x):
            hidden = self.first(x)[:, None]
            return self.attention(hidden, hidden, hidden)[0][:, 0]

    model, x = made(Attention), torch.randn(64, 6)
    small, report = afm.compress(model, [x], plan={"first": 6})
    assert "other code reads its weight without calling it" in report.left_alone["attention.out_proj"]
    assert "a parameter of MultiheadAttention" in report.left_alone["attention.in_proj_weight"]
    assert spread_error(model, small, x) < 1e-4


def test_an_encoder_layer_works_on_its_fast_path():
    model = made(nn.TransformerEncoderLayer, 16, 2, 64, batch_first=True).eval()
    x = torch.randn(32, 5, 16)
    small, _ = afm.compress(model, [x], plan={"linear1": 16, "linear2": 16})
    assert spread_error(model, small, x) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(ids, dtype):
    limit = {torch.float64: 1e-10, torch.bfloat16: 0.2, torch.float16: 0.03}[dtype]
    for cls in (Ranker, Interactions):
        model = made(cls).to(dtype)
        small, _ = afm.compress(model, [ids], plan=full_ranks(model, [ids]))
        assert {p.dtype for p in small.parameters()} == {dtype}
        assert spread_error(model, small, ids) < limit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{"basis": "shared"}, {"activation": "shifted_relu"}])
def test_a_model_on_a_gpu_takes_batches_from_the_cpu_and_stays_there(ids, options):
    for cls in (Ranker, Interactions):
        model = made(cls)
        wanted, _ = afm.compress(model, [ids], ratio=1.3, **options)
        small, _ = afm.compress(model.cuda(), [ids], ratio=1.3, **options)
        assert all(p.is_cuda for p in small.parameters())
        assert spread_error(wanted, small.cpu(), ids) < 1e-3


def test_frozen_layers_stay_frozen(ids):
    for basis in ("field", "shared"):
        model = made(Ranker)
        model.tables.requires_grad_(False)
        small, _ = afm.compress(model, [ids], ratio=2, basis=basis)
        assert not any(p.requires_grad for p in small.tables.parameters())
        assert all(p.requires_grad for p in small.tower.parameters())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(ids, wrap):
    small, _ = afm.compress(wrap(made(Ranker)), [ids], ratio=2)
    assert type(small) is Ranker


def test_a_wrapper_inside_stays(ids):
    model = nn.Sequential(nn.DataParallel(made(Ranker)), nn.Sigmoid())
    small, _ = afm.compress(model, [ids], plan={"0.module.tower.0": 24})
    assert type(small[0]) is nn.DataParallel and spread_error(model, small, ids) < 1e-4


def test_a_model_that_is_a_layer_itself():
    model, x = made(nn.Linear, 6, 16), torch.randn(64, 6)
    small, report = afm.compress(model, [x], plan={"": 6})
    assert isinstance(small, afm.FactorizedLinear) and spread_error(model, small, x) < 1e-4
    assert "the model" in str(report)


def test_buffers_stay_and_count_in_the_bytes(ids):
    model = made(Ranker)
    model.tower.insert(1, nn.BatchNorm1d(32))
    model.tower[1].running_mean.fill_(0.5)
    small, report = afm.compress(model, [ids], ratio=2)
    assert torch.equal(small.tower[1].running_mean, model.tower[1].running_mean)
    size = sum(t.nbytes for t in [*small.parameters(), *small.buffers()])
    assert report.bytes_after == size > 4 * report.parameters_after

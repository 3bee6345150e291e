"""afm.compress on models of other people's making."""

import copy

import afm
import pytest
import torch
from torch import nn

FIELDS, IDS, WIDTH, ROWS = 3, 40, 8, 400


class Ranker(nn.Module):
    """Layers in every kind of container, one used twice, one under two names, in-place activations."""

    def __init__(self, padding_idx=None):
        super().__init__()
        self.tables = nn.ModuleDict({f"f{j}": nn.Embedding(IDS, WIDTH, padding_idx=padding_idx) for j in range(FIELDS)})
        self.tower = nn.Sequential(nn.Linear(FIELDS * WIDTH, 32), nn.ReLU(inplace=True), nn.Linear(32, 24), nn.ReLU())
        self.blocks = nn.ModuleList([nn.Linear(24, 24)])
        self.again = self.blocks[0]
        self.head = nn.Linear(24, 1)

    def forward(self, ids):
        hidden = torch.cat([table(ids[:, j]) for j, table in enumerate(self.tables.values())], 1)
        hidden = self.tower(hidden)
        hidden = torch.relu_(self.blocks[0](hidden))
        return self.head(torch.relu(self.again(hidden)))


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


def made(cls, *args, **kwargs):
    torch.manual_seed(1)
    return cls(*args, **kwargs)


def full_ranks(model, batches, **kwargs):
    _, report = afm.compress(model, batches, energy=1.0, **kwargs)
    plan = {layer.name: min(layer.shape) for layer in report.layers if min(layer.shape) > 1}
    return {name: WIDTH if name.startswith("tables") else rank for name, rank in plan.items()}


def spread_error(model, small, *inputs):
    with torch.no_grad():
        expected = model(*inputs)
        return float((small(*inputs) - expected).abs().max() / expected.std())


# --- numerics


def test_full_rank_reproduces_the_logits_and_a_factor_one_percent_too_large_does_not(ids):
    model = made(Ranker)
    small, _ = afm.compress(model, [ids], plan=full_ranks(model, [ids]))
    assert spread_error(model, small, ids) < 1e-4
    with torch.no_grad():
        small.tower[2][0].weight *= 1.01
    assert spread_error(model, small, ids) > 1e-4


def output_error(dense, pair, inputs):
    with torch.no_grad():
        return float((pair(inputs) - dense(inputs)).double().square().sum(-1).mean())


def test_the_error_at_half_rank_is_the_predicted_one(ids):
    model = made(Ranker)
    plan = {"tower.0": 12, "tables.f1": 4}
    small, report = afm.compress(model, ids.split(150), plan=plan)  # batches of different sizes
    lines = {layer.name: layer for layer in report.layers}
    inputs = torch.cat([table(ids[:, j]) for j, table in enumerate(model.tables.values())], 1).detach()
    pairs = {
        "tower.0": (model.tower[0], small.tower[0], inputs),
        "tables.f1": (model.tables["f1"], small.tables["f1"], ids[:, 1]),
    }
    for name, (dense, pair, data) in pairs.items():
        assert lines[name].predicted_error > 0.01
        assert output_error(dense, pair, data) == pytest.approx(lines[name].predicted_error, rel=1e-4)
        with torch.no_grad():
            next(pair.parameters()).mul_(1.01)
        assert output_error(dense, pair, data) != pytest.approx(lines[name].predicted_error, rel=1e-4)


def test_the_measured_error_of_one_batch_is_the_predicted_one(ids):
    _, report = afm.compress(made(Ranker), [ids], ratio=1.5, skip=["blocks"])  # that is measured on one of its two uses
    assert any(layer.rank is not None for layer in report.layers)
    for layer in report.layers:
        assert layer.measured_error == pytest.approx(layer.predicted_error, rel=1e-3, abs=1e-9)


def test_rank_zero_gives_the_mean_and_can_be_trained(ids):
    model = made(Ranker)
    small, _ = afm.compress(model, [ids], plan={"tower.0": 0, "tables.f0": 0})
    mean = model.tables["f0"](ids[:, 0]).mean(0).detach()
    torch.testing.assert_close(small.tables["f0"](ids[:5, 0]), mean.expand(5, -1))
    optimizer = torch.optim.Adam(small.parameters())
    small(ids).square().mean().backward()
    optimizer.step()
    assert not torch.equal(small.tables["f0"](ids[:1, 0])[0], mean)


# --- budgets and options


@pytest.mark.parametrize("policy", ["energy", "uniform"])
def test_a_ratio_is_met_and_the_model_stays_as_it_is(ids, policy):
    model = made(Ranker).train()
    before = copy.deepcopy(model.state_dict())
    small, report = afm.compress(model, [ids], ratio=1.5, policy=policy)
    after = sum(p.numel() for p in small.parameters())
    assert report.parameters_after == after <= report.parameters_before / 1.5
    assert type(small) is Ranker and isinstance(small.tower[0], nn.Sequential)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and all(module.training for module in small.modules())


def test_bytes_and_energy_are_met(ids):
    model = made(Ranker)
    _, report = afm.compress(model, [ids], bytes=8000)
    assert report.bytes_after <= 8000 < report.bytes_before
    _, report = afm.compress(model, [ids], energy=0.8)
    assert all(layer.kept_energy >= 0.8 for layer in report.layers)


def test_the_plan_of_a_report_does_the_same_again(ids):
    model = made(Ranker)
    small, report = afm.compress(model, [ids], ratio=2)
    again, _ = afm.compress(model, [ids], plan=report.plan)
    assert spread_error(small, again, ids) == 0.0


def test_the_report_prints_as_a_table(ids):
    _, report = afm.compress(made(Ranker), [ids], ratio=2)
    text = str(report)
    assert all(layer.name in text for layer in report.layers)
    assert "optimizer" in text and f"{report.parameters_after:,} parameters" in text


@pytest.mark.parametrize("root", ["tower", "tower.0"])
def test_skipped_layers_stay_dense(ids, root):
    small, _ = afm.compress(made(Ranker), [ids], energy=0.5, skip=[root])
    assert type(small.tower[0]) is nn.Linear and type(small.blocks[0]) is not nn.Linear


def test_a_layer_is_skipped_by_any_of_its_names(ids):
    small, _ = afm.compress(made(Ranker), [ids], energy=0.5, skip=["again"])
    assert type(small.blocks[0]) is nn.Linear and type(small.tower[0]) is not nn.Linear


def test_bad_options_are_refused(ids):
    model = made(Ranker)
    with pytest.raises(ValueError, match="exactly one of ratio, bytes, energy and plan, got ratio, energy"):
        afm.compress(model, [ids], ratio=2, energy=0.5)
    with pytest.raises(ValueError, match="got none"):
        afm.compress(model, [ids])
    with pytest.raises(ValueError, match="must name layers or what holds them, got 'towr'"):
        afm.compress(model, [ids], ratio=2, skip=["towr"])
    with pytest.raises(ValueError, match="no statistics of layer 'towr'"):
        afm.compress(model, [ids], plan={"towr": 2})
    with pytest.raises(afm.DataError, match="at least one batch, got none"):
        afm.compress(model, iter([]), ratio=2)
    with pytest.raises(ValueError, match="ratio must be at most"):
        afm.compress(model, [ids], ratio=1000)


# --- what real models do


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


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_the_padding_row_stays_exactly_what_it_was(ids, value):
    model = made(Ranker, padding_idx=2)
    with torch.no_grad():
        model.tables["f0"].weight[2] = value
    row = model.tables["f0"].weight[2].detach().clone()
    small, report = afm.compress(model, [ids], plan={"tables.f0": 3})
    pair, padding = small.tables["f0"], torch.tensor([2])
    assert torch.equal(pair(padding)[0], row)
    assert report.layers[-3].measured_error == pytest.approx(report.layers[-3].predicted_error, rel=1e-3)
    optimizer = torch.optim.AdamW(small.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        small(ids).square().mean().backward()
        optimizer.step()
    assert torch.equal(pair(padding)[0], row)
    assert not torch.equal(pair(ids[:4, 0]), model.tables["f0"](ids[:4, 0]))


class Holder(nn.Module):
    """A linear layer on two numbers beside something that is to be left alone."""

    def __init__(self, **extra):
        super().__init__()
        self.first = nn.Linear(6, 16)
        for name, module in extra.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.first(x)


def reasons(model, forward=None, batch=None):
    batch = torch.randn(64, 6) if batch is None else batch
    _, report = afm.compress(model, [batch], plan={"first": 2}, forward=forward)
    return report.left_alone


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: nn.EmbeddingBag(9, 4), "nn.EmbeddingBag is not supported"),
        (lambda: nn.Bilinear(4, 4, 4), "nn.Bilinear is not supported"),
        (lambda: nn.Embedding(9, 4, max_norm=1.0), "max_norm"),
        (lambda: nn.Embedding(9, 4, sparse=True), "sparse=True"),
        (lambda: nn.Linear(9, 4), "not reached"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(9, 4)), "computed from other parameters"),
    ],
)
def test_what_cannot_be_a_pair_is_left_alone_with_the_reason(layer, reason):
    model = Holder(other=layer())
    assert reason in reasons(model)["other"]
    with pytest.raises(ValueError, match=r"'other', which must be left alone: .*" + reason.split()[0]):
        afm.compress(model, [torch.randn(64, 6)], plan={"other": 2})


def test_a_lazy_model_is_refused():
    with pytest.raises(ValueError, match=r"the parameters other\.weight, other\.bias have no values yet"):
        reasons(Holder(other=nn.LazyLinear(4)))


def test_tied_weights_are_left_alone():
    model = Holder(a=nn.Embedding(9, 4), b=nn.Linear(4, 9))
    model.b.weight = model.a.weight
    assert reasons(model) == {"a": "its weight is shared by a, b", "b": "its weight is shared by a, b"}


def test_a_layer_with_hooks_or_a_forward_of_its_own_or_a_second_holder_is_left_alone():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = Holder(hooked=nn.Linear(4, 4), scaled=Scaled(4, 4), held=nn.Linear(4, 4))
    model.hooked.register_forward_hook(lambda *_: None)
    model.outside = [{"layer": model.held}]
    left = reasons(model)
    assert "hooks" in left["hooked"] and "Scaled has a forward" in left["scaled"]
    assert left["held"] == "outside holds it past the module tree"


def test_attention_keeps_its_output_projection():
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
    assert "not reached" in report.left_alone["attention.out_proj"]
    assert spread_error(model, small, x) < 1e-4


def test_code_that_reads_the_weight_of_a_pair_gets_the_product():
    class Reader(Holder):
        def forward(self, x):
            return self.first(x) + nn.functional.linear(x, self.first.weight, self.first.bias)

    model, x = made(Reader), torch.randn(64, 6)
    small, _ = afm.compress(model, [x], plan={"first": 6})
    assert spread_error(model, small, x) < 1e-4
    assert (small.first.in_features, small.first.out_features) == (6, 16)


def test_an_encoder_layer_works_on_its_fast_path():
    model = made(nn.TransformerEncoderLayer, 16, 2, 64, batch_first=True).eval()
    x = torch.randn(32, 5, 16)
    small, _ = afm.compress(model, [x], plan={"linear1": 16, "linear2": 16})
    assert spread_error(model, small, x) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(ids, dtype):
    model = made(Ranker).to(dtype)
    small, _ = afm.compress(model, [ids], plan=full_ranks(model, [ids]))
    assert {p.dtype for p in small.parameters()} == {dtype}
    limit = {torch.float64: 1e-10, torch.bfloat16: 0.2, torch.float16: 0.03}[dtype]
    assert spread_error(model, small, ids) < limit


def test_frozen_layers_stay_frozen(ids):
    model = made(Ranker)
    model.tables.requires_grad_(False)
    small, _ = afm.compress(model, [ids], ratio=2)
    assert not any(p.requires_grad for p in small.tables.parameters())
    assert all(p.requires_grad for p in small.tower.parameters())


def test_data_parallel_wrappers_are_taken_off(ids):
    small, _ = afm.compress(nn.DataParallel(made(Ranker)), [ids], ratio=2)
    assert type(small) is Ranker


def test_a_model_that_is_a_layer_itself():
    model, x = made(nn.Linear, 6, 16), torch.randn(64, 6)
    small, report = afm.compress(model, [x], plan={"": 6})
    assert isinstance(small, afm.FactorizedLinear) and spread_error(model, small, x) < 1e-4
    assert "the model" in str(report)


def test_hooks_and_modes_are_as_before_after_an_exception(ids):
    model = made(Ranker)
    model.head.eval()
    seen = []

    def forward(copied, batch):
        seen.append(copied)
        copied(batch)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        afm.compress(model, [ids], ratio=2, forward=forward)
    for module in seen[0].modules():
        assert not module._forward_hooks
    assert seen[0].training and not seen[0].head.training


def test_dropout_is_off_during_calibration():
    modes = []
    model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5)).train()
    afm.compress(model, [torch.randn(64, 6)], plan={"0": 2}, forward=lambda m, x: (modes.append(m[1].training), m(x)))
    assert modes == [False]


def test_outputs_that_are_not_finite_are_named():
    with pytest.raises(afm.DataError, match=r"the outputs of first must be finite; 64 of 64"):
        afm.compress(Holder(), [torch.full((64, 6), float("nan"))], ratio=2)


class Keywords(Holder):
    def forward(self, a, b, scale=1.0):
        return self.first(a + b) * scale


class OneDict(Holder):
    def forward(self, batch):
        return self.first(batch["a"] + batch["b"])


@pytest.mark.parametrize(
    ("cls", "shape"), [(Keywords, tuple), (Keywords, list), (Keywords, dict), (OneDict, dict), (Holder, torch.Tensor)]
)
def test_batches_are_passed_as_the_model_takes_them(cls, shape):
    a, b = torch.randn(64, 6), torch.randn(64, 6)
    batch = {"a": a, "b": b} if shape is dict else a if shape is torch.Tensor else shape((a, b))
    _, report = afm.compress(made(cls), [batch], plan={"first": 2})
    assert report.layers[0].rank == 2


# --- afterwards


def train(model, ids, optimizer, steps=40):
    target = (ids.sum(1, keepdim=True) % 7 < 3).float()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(ids), target)
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_training_goes_on_and_an_old_optimizer_is_refused(ids):
    model = made(Ranker)
    old = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, ids, old)
    small, report = afm.compress(model, [ids], ratio=3)
    with pytest.raises(ValueError, match=r"must hold all .* Make a new one after afm\.compress"):
        report.check_optimizer(old)
    new = torch.optim.Adam(afm.parameter_groups(small), lr=1e-2)
    report.check_optimizer(new)
    first = train(small, ids, new, steps=1)
    assert train(small, ids, new) < 0.8 * first


def test_parameter_groups_hold_each_parameter_once(ids):
    small, _ = afm.compress(made(Ranker), [ids], plan={"tower.0": 8, "again": 3, "tables.f0": 4})
    groups = {group["name"]: {id(p) for p in group["params"]} for group in afm.parameter_groups(small)}
    assert groups["factors"] == {
        id(p) for part in (small.tower[0], small.again, small.tables["f0"].basis) for p in part.parameters()
    }
    assert groups["tables"] == {id(t.weight) for t in (small.tables["f0"].rows, small.tables["f1"], small.tables["f2"])}
    assert sum(map(len, groups.values())) == len(list(small.parameters()))


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_saving_and_loading_into_a_fresh_model(ids, tmp_path, padding_idx):
    model = made(Ranker, padding_idx=padding_idx)
    small, _ = afm.compress(model, [ids], energy=0.6)
    afm.save_compressed(small, tmp_path / "small.safetensors")
    fresh = Ranker(padding_idx=padding_idx)
    loaded = afm.load_compressed(fresh, tmp_path / "small.safetensors")
    assert torch.equal(loaded(ids), small(ids))
    assert loaded.again is loaded.blocks[0] and type(fresh.again) is nn.Linear
    trainable = [name for name, p in small.named_parameters() if p.requires_grad]
    assert [name for name, p in loaded.named_parameters() if p.requires_grad] == trainable


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


def test_the_result_can_be_exported(ids):
    small, _ = afm.compress(made(Ranker).eval(), [ids], ratio=2)
    program = torch.export.export(small, (ids,)).module()
    torch.testing.assert_close(program(ids), small(ids))

"""afm.compress: the factors are the best ones, whatever kind of layer they stand for."""

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, WIDTH, Interactions, Ranker, full_ranks, made, output_error, spread_error
from torch import nn


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


def lines(report):
    return {layer.name: layer for layer in report.layers}


def test_full_rank_reproduces_the_logits_and_a_factor_one_percent_too_large_does_not(ids):
    model = made(Ranker)
    small, _ = afm.compress(model, [ids], plan=full_ranks(model, [ids]))
    assert spread_error(model, small, ids) < 1e-4
    with torch.no_grad():
        small.tower[2][0].weight *= 1.01
    assert spread_error(model, small, ids) > 1e-4


def test_the_error_at_half_rank_is_the_predicted_one(ids):
    model = made(Ranker)
    plan = {"tower.0": 12, "tables.f1": 4}
    small, report = afm.compress(model, ids.split(150), plan=plan)  # batches of different sizes
    inputs = torch.cat([table(ids[:, j]) for j, table in enumerate(model.tables.values())], 1).detach()
    pairs = {
        "tower.0": (model.tower[0], small.tower[0], inputs),
        "tables.f1": (model.tables["f1"], small.tables["f1"], ids[:, 1]),
    }
    for name, (dense, pair, data) in pairs.items():
        predicted = lines(report)[name].predicted_error
        assert predicted > 0.01
        assert output_error(dense, pair, data) == pytest.approx(predicted, rel=1e-4)
        with torch.no_grad():
            next(pair.parameters()).mul_(1.01)
        assert output_error(dense, pair, data) != pytest.approx(predicted, rel=1e-4)


@pytest.mark.parametrize("basis", ["field", "shared"])
def test_the_measured_error_of_one_batch_is_the_predicted_one(ids, basis):
    # blocks is measured on one of its two uses
    _, report = afm.compress(made(Ranker), [ids], ratio=1.5, skip=["blocks"], basis=basis)
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


@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("basis", ["field", "shared"])
def test_the_padding_row_stays_exactly_what_it_was(ids, value, basis):
    model = made(Ranker, padding_idx=2)
    with torch.no_grad():
        model.tables["f0"].weight[2] = value
    row = model.tables["f0"].weight[2].detach().clone()
    plan = {"tables.f0": afm.LayerPlan([3], basis), "tables.f1": afm.LayerPlan([4], basis)}
    small, report = afm.compress(model, [ids], plan=plan)
    pair, padding = small.tables["f0"], torch.tensor([2])
    assert torch.equal(pair(padding)[0], row)
    line = lines(report)["tables.f0"]
    assert line.measured_error == pytest.approx(line.predicted_error, rel=1e-3)
    optimizer = torch.optim.AdamW(small.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        small(ids).square().mean().backward()
        optimizer.step()
    assert torch.equal(pair(padding)[0], row)
    assert not torch.equal(pair(ids[:4, 0]), model.tables["f0"](ids[:4, 0]))


# --- a shared basis


def test_tables_share_one_orthonormal_basis_of_their_pooled_covariance(ids):
    model = made(Ranker)
    ranks = {"tables.f0": 5, "tables.f1": 2, "tables.f2": 3}
    plan = {name: afm.LayerPlan([rank], "shared") for name, rank in ranks.items()}
    small, report = afm.compress(model, [ids], plan=plan)
    first, second, third = small.tables.values()
    assert first.basis is second.basis is third.basis
    assert [table.rows.embedding_dim for table in (first, second, third)] == [5, 2, 3]
    basis = first.basis.weight.detach().double()  # [D, K]
    torch.testing.assert_close(basis.T @ basis, torch.eye(5, dtype=torch.float64), atol=1e-6, rtol=0.0)
    pool = sum(
        torch.cov(table(ids[:, j]).detach().double().T, correction=0) for j, table in enumerate(model.tables.values())
    )
    best = torch.linalg.eigh(pool).eigenvectors.flip(1)[:, :5]
    torch.testing.assert_close((best.T @ basis).abs(), torch.eye(5, dtype=torch.float64), atol=1e-5, rtol=0.0)
    assert [lines(report)[name].parameters_after for name in ranks] == [40 * 5 + 8 * 5 + 8, 40 * 2 + 8, 40 * 3 + 8]


def test_full_rank_in_a_shared_basis_reproduces_the_logits(ids):
    model = made(Ranker)
    plan = {f"tables.f{j}": afm.LayerPlan([WIDTH], "shared") for j in range(FIELDS)}
    small, _ = afm.compress(model, [ids], plan=plan)
    assert spread_error(model, small, ids) < 1e-5
    torch.testing.assert_close(small.tables["f1"].weight, model.tables["f1"].weight)
    with torch.no_grad():
        small.tables["f0"].basis.weight.mul_(1.01)
    assert spread_error(model, small, ids) > 1e-4


# --- activations


def test_the_shifted_activation_changes_nothing_at_first_and_the_plain_one_does(ids):
    model = made(Ranker)
    ranks = {"tower.0": 10, "tower.2": 6, "blocks.0": 5}
    outputs = {}
    for activation in ("none", "relu", "shifted_relu"):
        plan = {name: afm.LayerPlan([rank], activation=activation) for name, rank in ranks.items()}
        small, _ = afm.compress(model, [ids], plan=plan)
        kinds = [type(part) for part in small.tower[0]]
        assert kinds == ([nn.Linear, nn.Linear] if activation == "none" else [nn.Linear, nn.ReLU, nn.Linear])
        outputs[activation] = small(ids).detach()
    spread = float(outputs["none"].std())
    torch.testing.assert_close(outputs["shifted_relu"], outputs["none"], atol=1e-4 * spread, rtol=0.0)
    assert (outputs["relu"] - outputs["none"]).abs().max() > 0.1 * spread


def test_a_pair_with_an_activation_has_no_weight_and_trains_through_it(ids):
    small, report = afm.compress(made(Ranker), [ids], ratio=1.5, activation="relu")
    pair = small.tower[0]
    assert report.plan["tower.0"].activation == "relu" and pair.activation == "relu"
    assert not hasattr(pair, "weight") and not hasattr(pair, "bias") and pair.in_features == FIELDS * WIDTH
    assert all(report.plan[name].activation == "none" for name in report.plan if name.startswith("tables"))
    small(ids).square().mean().backward()
    assert all(p.grad is not None for p in pair.parameters())


# --- convolutions and bags


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_width_one_is_a_linear_layer_over_channels(ids, bias):
    model = made(Interactions, bias)
    small, report = afm.compress(model, [ids], plan={"cin": 9})
    assert [type(part) for part in small.cin] == [nn.Conv1d, nn.Conv1d] and small.cin[0].kernel_size == (1,)
    assert spread_error(model, small, ids) < 1e-4
    products = model.products(ids)
    whole = nn.functional.conv1d(products, small.cin.weight, small.cin.bias)  # as code that reads its weight has it
    torch.testing.assert_close(whole, small.cin(products), atol=1e-5, rtol=1e-4)
    assert (small.cin.in_channels, small.cin.out_channels, lines(report)["cin"].shape) == (9, 20, (20, 9))
    with torch.no_grad():
        small.cin[1].weight.mul_(1.01)
    assert spread_error(model, small, ids) > 1e-4


def test_the_error_of_a_convolution_is_over_all_places_of_all_rows(ids):
    model = made(Interactions)
    _, report = afm.compress(model, [ids], plan={"cin": 4})
    places = model.products(ids).movedim(1, -1).flatten(0, 1).detach()
    outputs = nn.functional.linear(places, model.cin.weight[:, :, 0], model.cin.bias).detach().double()
    wanted = torch.linalg.eigvalsh(torch.cov(outputs.T, correction=0))[:-4].sum()
    assert lines(report)["cin"].predicted_error == pytest.approx(float(wanted), rel=1e-4)
    assert lines(report)["cin"].measured_error == pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding_idx", [None, 3])
def test_an_embedding_bag_becomes_a_smaller_bag(mode, padding_idx):
    bag = made(nn.EmbeddingBag, 50, 8, mode=mode, padding_idx=padding_idx)
    ids = torch.randint(50, (900,))
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(900, (299,)).sort().values])
    offsets[7] = offsets[8]  # an empty bag
    model = nn.ModuleDict({"bag": bag})

    def forward(model, batch):
        return model["bag"](*batch)

    small, report = afm.compress(model, [(ids, offsets)], plan={"bag": 3}, forward=forward)
    outputs = bag(ids, offsets).detach().double()
    wanted = torch.linalg.eigvalsh(outputs.T @ outputs / len(offsets))[:-3].sum()
    assert lines(report)["bag"].predicted_error == pytest.approx(float(wanted), rel=1e-4)
    assert lines(report)["bag"].measured_error == pytest.approx(float(wanted), rel=1e-3)
    assert output_error(bag, small["bag"], ids, offsets) == pytest.approx(float(wanted), rel=1e-3)
    assert not small["bag"](ids, offsets)[7].any()
    full, _ = afm.compress(model, [(ids, offsets)], plan={"bag": 8}, forward=forward)
    torch.testing.assert_close(full["bag"](ids, offsets), bag(ids, offsets), atol=1e-4, rtol=1e-4)


# --- the baseline


def test_the_weight_svd_is_worse_on_the_outputs_and_exact_at_full_rank(ids):
    model = made(Ranker)
    statistics = afm.collect_statistics(model, [ids])
    errors = {}
    for method in ("mimic", "svd"):
        small = afm.factorize(model, statistics, {"tower.2": 8, "tables.f0": 3}, method=method)
        errors[method] = (
            output_error(model.tower[2], small.tower[2], torch.relu(model.tower[0](embedded(model, ids)))),
            output_error(model.tables["f0"], small.tables["f0"], ids[:, 0]),
        )
    assert all(mimic < svd for mimic, svd in zip(errors["mimic"], errors["svd"], strict=True))
    full = afm.factorize(model, statistics, full_ranks(model, [ids]), method="svd")
    assert spread_error(model, full, ids) < 1e-4


def embedded(model, ids):
    return torch.cat([table(ids[:, j]) for j, table in enumerate(model.tables.values())], 1).detach()


def test_an_id_that_the_whole_training_set_lacks_gets_the_mean(ids):
    model = made(Ranker)
    seen = ids % 30
    pair = {}
    for whole in (False, True):
        statistics = afm.collect_statistics(model, [seen], whole_training_set=whole)
        pair[whole] = afm.factorize(model, statistics, {"tables.f0": 5}).tables["f0"]
    mean = model.tables["f0"](seen[:, 0]).mean(0)
    unseen = torch.arange(30, 40)
    torch.testing.assert_close(pair[True](unseen), mean.expand(10, -1))
    assert (pair[False](unseen) - mean).abs().max() > 0.1
    torch.testing.assert_close(pair[True](seen[:, 0]), pair[False](seen[:, 0]))

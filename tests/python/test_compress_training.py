"""afm.compress: training goes on, and an optimizer from before cannot be used unnoticed."""

import functools

import afm
import pytest
import torch
from other_models import FIELDS, IDS, ROWS, Interactions, Ranker, made, train
from torch import nn

PLAN = {"tower.0": 8, "tables.f0": 3, "tables.f1": 3}


@pytest.fixture
def ids():
    return torch.randint(IDS, (ROWS, FIELDS), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("options", [{}, {"basis": "shared"}, {"activation": "shifted_relu"}])
@pytest.mark.parametrize("cls", [Ranker, Interactions])
def test_training_goes_on_and_an_old_optimizer_is_refused(ids, cls, options):
    model = made(cls)
    old = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(model, ids, old)
    small, report = afm.compress(model, [ids], ratio=1.5, **options)
    with pytest.raises(ValueError, match=r"must hold all .* Make a new one after afm\.compress"):
        report.check_optimizer(old)
    new = torch.optim.Adam(afm.parameter_groups(small), lr=1e-2)
    report.check_optimizer(new)
    first = train(small, ids, new, steps=1)
    assert train(small, ids, new) < 0.85 * first


def test_a_step_of_an_old_optimizer_raises_instead_of_training_nothing(ids):
    model = made(Ranker)
    old = torch.optim.Adam(model.parameters())
    train(model, ids, old, steps=2)
    small, _ = afm.compress(model, [ids], ratio=2)
    with pytest.raises(ValueError, match=r"made before the model was compressed: .* trains nothing"):
        train(small, ids, old)
    train(model, ids, old, steps=2)  # which is what it is for
    others = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    others.step()  # of no model that was compressed


def test_an_optimizer_whose_closure_makes_the_gradients_is_not_taken_for_an_old_one(ids):
    model = made(Ranker)
    afm.compress(model, [ids], ratio=2)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(ids).square().mean()
        loss.backward()
        return loss

    before = model.head.weight.detach().clone()
    optimizer.step(closure)
    assert not torch.equal(model.head.weight, before)


def test_parameter_groups_hold_each_parameter_once(ids):
    plan = {"tower.0": 8, "again": 3, "tables.f0": 4}
    small, _ = afm.compress(made(Ranker), [ids], plan=plan)
    groups = {group["name"]: {id(p) for p in group["params"]} for group in afm.parameter_groups(small)}
    assert groups["factors"] == {
        id(p) for part in (small.tower[0], small.again, small.tables["f0"].basis) for p in part.parameters()
    }
    assert groups["tables"] == {id(t.weight) for t in (small.tables["f0"].rows, small.tables["f1"], small.tables["f2"])}
    assert sum(map(len, groups.values())) == len(list(small.parameters()))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad])
def test_parameter_groups_come_with_learning_rates_for_any_optimizer(ids, kind):
    small, report = afm.compress(made(Ranker), [ids], plan=PLAN)
    optimizer = kind(afm.parameter_groups(small, lr=0.01))
    report.check_optimizer(optimizer)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"factors": 0.003, "tables": 0.01, "rest": 0.01})
    assert all("lr" not in group for group in afm.parameter_groups(small))
    with pytest.raises(ValueError, match="parameter_groups lr must be > 0, got 0"):
        afm.parameter_groups(small, lr=0)


def test_a_shared_basis_and_its_offsets_are_factors(ids):
    plan = {f"tables.f{j}": afm.LayerPlan([3], "shared") for j in range(FIELDS)}
    small, _ = afm.compress(made(Ranker), [ids], plan=plan)
    groups = {group["name"]: {id(p) for p in group["params"]} for group in afm.parameter_groups(small)}
    offsets = [table.offset for table in small.tables.values()]
    assert groups["factors"] == {id(p) for p in [small.tables["f0"].basis.weight, *offsets]}


def test_a_regularizer_that_walks_modules_and_parameters_goes_on(ids):
    """As FuxiCTR's: all parameters below an embedding module, then all others by name."""

    def penalty(model):
        tables = {f"tables.{name}" for name, _ in model.tables.named_parameters()}
        norms = [p.norm() ** 2 for _, p in model.tables.named_parameters()]
        norms += [p.norm() for name, p in model.named_parameters() if name not in tables and "weight" in name]
        norms += [m.weight.norm() for m in model.modules() if isinstance(m, nn.Linear | nn.Embedding)]
        return sum(norms)

    small, _ = afm.compress(made(Ranker), [ids], ratio=2)
    before = float(penalty(small).detach())
    optimizer = torch.optim.Adam(small.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        penalty(small).backward()
        optimizer.step()
    assert float(penalty(small).detach()) < 0.9 * before


# --- optimizers that a model holds


OPTIMIZERS = [
    functools.partial(torch.optim.Adam, lr=3e-3, betas=(0.8, 0.99)),
    functools.partial(torch.optim.Adagrad, lr=0.05, initial_accumulator_value=0.1),
    functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    functools.partial(torch.optim.RMSprop, lr=1e-3, centered=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_an_optimizer_that_the_model_holds_trains_the_copy(ids, make):
    model = made(Ranker)
    model.history = {"model": model}  # which is not where the optimizer is
    model.optim = make(model.parameters())
    train(model, ids, model.optim, steps=3)
    small, report = afm.compress(model, [ids], plan=PLAN)
    report.check_optimizer(small.optim)
    with pytest.raises(ValueError, match="are missing"):
        report.check_optimizer(model.optim)
    assert type(small.optim) is type(model.optim) and "rebuilt over the new parameters" in report.optimizers["optim"]
    group, old_group = (optimizer.param_groups[0] for optimizer in (small.optim, model.optim))
    assert {**group, "params": 0} == {**old_group, "params": 0}
    kept, old = small.tower[2].weight, model.tower[2].weight
    for key, value in model.optim.state[old].items():
        assert torch.equal(torch.as_tensor(small.optim.state[kept][key]), torch.as_tensor(value))
    first = train(small, ids, small.optim, steps=1)
    assert train(small, ids, small.optim) < first


def test_groups_and_schedulers_stay(ids):
    model = made(Ranker)
    model.optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in model.named_parameters() if n.endswith("weight")], "weight_decay": 0.1},
            {"params": [p for n, p in model.named_parameters() if n.endswith("bias")], "lr": 5.0},
        ],
        lr=1.0,
    )
    model.scheduler = torch.optim.lr_scheduler.StepLR(model.optimizer, 1, gamma=0.5)
    small, report = afm.compress(model, [ids], plan=PLAN)
    report.check_optimizer(small.optimizer)
    decayed, free = small.optimizer.param_groups
    pair, table = small.tower[0], small.tables["f0"]
    assert {id(pair[0].weight), id(pair[1].weight), id(table.basis.bias)} <= {id(p) for p in decayed["params"]}
    assert {id(pair[0].bias), id(pair[1].bias)} <= {id(p) for p in free["params"]}
    assert small.scheduler.optimizer is small.optimizer
    small.optimizer.step()
    small.scheduler.step()
    assert (decayed["lr"], free["lr"], decayed["weight_decay"]) == (0.5, 2.5, 0.1)


def test_an_optimizer_with_named_parameters_has_the_new_names(ids):
    model = made(Ranker)
    model.optim = torch.optim.SGD(model.named_parameters(), lr=0.1)
    small, _ = afm.compress(model, [ids], plan=PLAN)
    group = small.optim.param_groups[0]
    known = dict(small.named_parameters())
    assert len(group["params"]) == len(known)
    assert all(known[name] is p for name, p in zip(group["param_names"], group["params"], strict=True))


def test_an_optimizer_over_other_parameters_is_not_touched(ids):
    model = made(Ranker)
    model.optim = torch.optim.Adam(model.head.parameters())
    small, report = afm.compress(model, [ids], plan=PLAN)
    assert report.optimizers == {} and all(
        a is b for a, b in zip(small.optim.param_groups[0]["params"], small.head.parameters(), strict=True)
    )

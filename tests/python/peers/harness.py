"""What every model of a peer goes through: training, compression, comparison, more training, saving, loading."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import afm
import pytest
import torch
from afm.factorized import factorized_layers
from results import result_of
from subjects import Peer, Subject, fresh
from torch import nn

TOLERANCE = 1e-4  # of the logits' spread
MATTERS = 0.03  # of the logits' spread: what half as much again of a factor moves, for the control to be asked of it
RATIO = 2.0
ALL_ROWS = 4096  # of a layer that calibration always takes; of more, it may take a share
EXACT, SAMPLED = 2e-3, 0.05  # how far a prediction from all rows, or from a share, may be off
SMALL = 3e-7  # share of a layer's output energy that is rounding of float32


def ranks_of(subject: Subject, share: float) -> dict[str, int]:
    """The same share of the full rank for every layer that can become a pair."""
    _, report = subject.compress(energy=1.0)
    full = {layer.name: min(layer.shape) for layer in report.layers if min(layer.shape) > 1}
    return {name: max(1, round(rank * share)) for name, rank in full.items()}


@torch.no_grad()
def error_with(subject: Subject, small: nn.Module, factor: torch.Tensor, scale: float) -> float:
    """The error of the logits with one factor scaled."""
    kept = factor.clone()
    factor.mul_(scale)
    error = subject.error(small)
    factor.copy_(kept)
    return error


@dataclass(frozen=True)
class OutputError:
    """Mean squared distance of a pair's outputs from the dense ones, and their energy, over the rows of all calls."""

    distance: float
    energy: float
    rows: int


def output_errors(subject: Subject, small: nn.Module, names: Sequence[str]) -> dict[str, OutputError]:
    dense, pairs = subject.model.get_submodule, small.get_submodule
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in names}

    def measure(name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            channels = 1 if isinstance(module, nn.Conv1d) else -1
            exact = output.double()
            error = (pairs(name)(*args).double() - exact).square().sum(channels)
            sums[name] += torch.stack([error.sum(), exact.square().sum(), torch.tensor(float(error.numel()))])

        return hook

    hooks = [dense(name).register_forward_hook(measure(name)) for name in names]
    try:
        small.eval()
        subject.peer.logits_of(subject.model)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: OutputError(float(d / rows), float(e / rows), int(rows)) for name, (d, e, rows) in sums.items()}


def bounds_of(predicted: float, error: OutputError) -> Any:
    """What a measured distance must be equal to."""
    bound = SAMPLED if error.rows > ALL_ROWS else EXACT
    return pytest.approx(predicted, rel=bound, abs=SMALL * error.energy)


def is_trained(model: nn.Module, name: str) -> bool:
    """Of a layer or parameter; others are constants, such as FuxiCTR's indices of pairs of fields."""
    held = [parameter for full, parameter in model.named_parameters() if f"{full}.".startswith(f"{name}.")]
    return any(parameter.requires_grad for parameter in held)


class PeerTests:
    """Inherited by the tests of each peer, which bring the fixture `subject`."""

    def test_full_rank_reproduces_the_logits_and_a_factor_one_percent_too_large_does_not(self, subject):
        subject = subject.exact()
        before = copy.deepcopy(subject.model.state_dict())
        small, _ = subject.compress(plan=ranks_of(subject, 1.0))
        assert subject.error(small) < TOLERANCE
        assert all(torch.equal(before[name], value) for name, value in subject.model.state_dict().items())
        detected = 0
        for name, pair in factorized_layers(small).items():
            factor = next(pair.parameters())
            if error_with(subject, small, factor, 1.5) > MATTERS:
                assert error_with(subject, small, factor, 1.01) > TOLERANCE, name
                detected += 1
        assert detected
        subject.result["checks"].append("full rank")

    def test_the_error_of_every_layer_at_half_rank_is_the_predicted_one(self, subject):
        small, report = subject.compress(plan=ranks_of(subject, 0.5))
        predicted = {layer.name: layer.predicted_error for layer in report.layers if layer.rank is not None}
        assert predicted
        for name, error in output_errors(subject, small, list(predicted)).items():
            assert error.distance == bounds_of(predicted[name], error), name
        subject.result["half_rank_error"] = subject.error(small)
        with torch.no_grad():  # the control: one factor of each pair a tenth too large
            for pair in factorized_layers(small).values():
                next(pair.parameters()).mul_(1.1)
        wrong = output_errors(subject, small, list(predicted))
        assert any(error.distance != bounds_of(predicted[name], error) for name, error in wrong.items())
        subject.result["checks"].append("half rank")

    def test_it_meets_a_budget_and_trains_on_with_its_own_trainer(self, subject, tmp_path):
        peer, ratio = subject.peer, subject.peer.ratios.get(subject.name, RATIO)
        small, report = subject.compress(ratio=ratio)
        pairs = factorized_layers(small)
        assert pairs and report.parameters_after <= report.parameters_before / ratio
        with pytest.raises(ValueError, match="the optimizer must hold all"):
            report.check_optimizer(subject.optimizer)
        if peer.held is not None:
            report.check_optimizer(peer.held(small))
        before = {name: parameter.detach().clone() for name, parameter in small.named_parameters()}
        loss = peer.training_loss(small)
        report.check_optimizer(peer.fit(small, 2))
        healed = peer.training_loss(small)
        assert healed < loss, (healed, loss)
        for name, pair in pairs.items():
            for kind, parameter in pair.named_parameters():
                if parameter.requires_grad and parameter.numel() > 0:  # a pair of rank 0 is its bias
                    assert not torch.equal(parameter, before[f"{name}.{kind}"]), f"{name}.{kind} did not move"
        subject.result |= {
            "parameters": report.parameters_before,
            "parameters_after": report.parameters_after,
            "ratio": ratio,
            "left_alone": {
                name: {"reason": reason, "parameters": report.left_alone_parameters[name]}
                for name, reason in report.left_alone.items()
                if is_trained(subject.model, name)
            },
            "training_loss": [peer.training_loss(subject.model), loss, healed],
        }
        subject.result["checks"].append("trains on")

        path = tmp_path / "small.safetensors"
        afm.save_compressed(small, path)
        again = afm.load_compressed(fresh(peer, subject.name), path)
        assert torch.equal(peer.logits_of(again), peer.logits_of(small))
        subject.result["checks"].append("reloads")


def refusal(peer: Peer, name: str) -> None:
    """A model that has nothing to compress is refused with a sentence, which the results record."""
    model = fresh(peer, name)
    peer.fit(model, 1)
    with pytest.raises(ValueError, match=peer.refused[name]) as error:
        afm.compress(model, peer.batches, forward=peer.forward, ratio=RATIO)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result_of(peer.name, name).update(refused=str(error.value), parameters=parameters)

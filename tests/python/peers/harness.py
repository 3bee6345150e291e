"""What every model of a peer goes through: training, compression, comparison, more training, saving, loading."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import afm
import pytest
import torch
from afm.factorized import factorized_layers
from torch import nn
from torch.overrides import TorchFunctionMode

TOLERANCE = 1e-4  # of the logits' spread
MATTERS = 0.03  # of the logits' spread: what half as much again of a factor moves, for the control to be asked of it
LEAST_SPREAD = 0.2  # of the logits of a trained model: below it, a comparison would pass for any model
RATIO = 2.0
SMALL = 3e-7  # share of a layer's output energy that is rounding of float32


@dataclass
class Peer:
    """How a peer's models are built, trained and called.

    Args:
        name: of the package, with its version.
        build: name of a model -> a fresh one, as the peer's users make it.
        fit: trains with the peer's own trainer, which makes its optimizer anew; returns that optimizer.
        batches: the training rows, as the peer's own loader gives them.
        forward: runs the model on one batch as its trainer does.
        logits: of one batch, [B].
        labels: of one batch, [B].
        epochs: of training before compression.
        ratios: budgets of models that cannot reach RATIO.
        doubles: models that are compared in float64, because they amplify rounding.
        refused: models that cannot be compressed -> what the refusal must say.
    """

    name: str
    build: Callable[[str], nn.Module]
    fit: Callable[[nn.Module, int], torch.optim.Optimizer]
    batches: Sequence[Any]
    forward: Callable[[nn.Module, Any], Any]
    logits: Callable[[nn.Module, Any], torch.Tensor]
    labels: Callable[[Any], torch.Tensor]
    epochs: int = 4
    ratios: dict[str, float] = field(default_factory=dict)
    doubles: Sequence[str] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def logits_of(self, model: nn.Module) -> torch.Tensor:
        """Of all batches, in evaluation mode, in float64."""
        model.eval()
        with torch.no_grad():
            return torch.cat([self.logits(model, batch).reshape(-1) for batch in self.batches]).double()

    def logloss_of(self, model: nn.Module) -> float:
        labels = torch.cat([self.labels(batch).reshape(-1) for batch in self.batches]).double()
        return float(nn.functional.binary_cross_entropy_with_logits(self.logits_of(model), labels))


@dataclass
class Subject:
    """A trained model of a peer, and what came out of the tests."""

    peer: Peer
    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    logits: torch.Tensor
    result: dict[str, Any] = field(default_factory=dict)

    def compress(self, **budget: Any) -> tuple[nn.Module, afm.CompressionReport]:
        return afm.compress(self.model, self.peer.batches, forward=self.peer.forward, **budget)

    def exact(self) -> Subject:
        """The model for comparisons down to rounding."""
        if self.name not in self.peer.doubles:
            return self
        peer = replace(self.peer, batches=[in_double(batch) for batch in self.peer.batches])
        model = copy.deepcopy(self.model).double()
        return replace(self, peer=peer, model=model, logits=peer.logits_of(model))

    def error(self, other: nn.Module) -> float:
        """The largest difference of the logits, in units of their spread."""
        return float((self.peer.logits_of(other) - self.logits).abs().max() / self.logits.std())


def in_double(batch: Any) -> Any:
    if isinstance(batch, dict):
        return {name: in_double(part) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return [in_double(part) for part in batch]
    return batch.double() if isinstance(batch, torch.Tensor) and batch.is_floating_point() else batch


def input_of(module: nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    """What a module is called with in a run of its model: of the last sigmoid, the logits."""
    inputs = []
    hook = module.register_forward_pre_hook(lambda _module, args: inputs.append(args[0]))
    try:
        run()
    finally:
        hook.remove()
    return inputs[-1]


class LastSigmoid(TorchFunctionMode):
    """Of a model that calls torch.sigmoid at its end: `input` is what the last call was given."""

    input: torch.Tensor

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.sigmoid, torch.Tensor.sigmoid):
            self.input = args[0]
        return func(*args, **(kwargs or {}))


def fresh(peer: Peer, name: str) -> nn.Module:
    """Always with the same random numbers: some models hold constants that are no parameters, and so not saved."""
    torch.manual_seed(1)
    return peer.build(name)


def trained(peer: Peer, name: str) -> Subject:
    """A model with realistic weights, trained by its peer."""
    model = fresh(peer, name)
    optimizer = peer.fit(model, peer.epochs)
    logits = peer.logits_of(model)
    assert float(logits.std()) > LEAST_SPREAD, f"the logits of {name} hardly differ: {float(logits.std()):.3g}"
    return Subject(
        peer, name, model, optimizer, logits, RESULTS.setdefault(peer.name, {}).setdefault(name, {"checks": []})
    )


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


def output_errors(subject: Subject, small: nn.Module, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Layer -> mean squared distance of the pair's outputs from the dense ones, and their energy, over all calls."""
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
    return {name: (float(total[0] / total[2]), float(total[1] / total[2])) for name, total in sums.items()}


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
        measured = output_errors(subject, small, list(predicted))
        assert predicted
        for name, (error, energy) in measured.items():
            assert error == pytest.approx(predicted[name], rel=2e-3, abs=SMALL * energy), name
        subject.result["half_rank_error"] = subject.error(small)
        subject.result["checks"].append("half rank")

    def test_it_meets_a_budget_and_trains_on_with_its_own_trainer(self, subject, tmp_path):
        peer, ratio = subject.peer, subject.peer.ratios.get(subject.name, RATIO)
        small, report = subject.compress(ratio=ratio)
        pairs = factorized_layers(small)
        assert pairs and report.parameters_after <= report.parameters_before / ratio
        with pytest.raises(ValueError, match="the optimizer must hold all"):
            report.check_optimizer(subject.optimizer)
        before = {name: parameter.detach().clone() for name, parameter in small.named_parameters()}
        loss = peer.logloss_of(small)
        report.check_optimizer(peer.fit(small, 2))
        healed = peer.logloss_of(small)
        assert healed < loss, (healed, loss)
        for name, pair in pairs.items():
            for kind, parameter in pair.named_parameters():
                if parameter.requires_grad:
                    assert not torch.equal(parameter, before[f"{name}.{kind}"]), f"{name}.{kind} did not move"
        subject.result |= {
            "parameters_before": report.parameters_before,
            "parameters_after": report.parameters_after,
            "left_alone": report.left_alone,
            "logloss": [peer.logloss_of(subject.model), loss, healed],
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
    RESULTS.setdefault(peer.name, {})[name] = {"checks": [], "refused": str(error.value)}


RESULTS: dict[str, dict[str, dict[str, Any]]] = {}


def write_results() -> None:
    folder = os.environ.get("AFM_PEER_RESULTS")
    if folder is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for peer, models in RESULTS.items():
        Path(folder, f"{peer.split()[0]}.json").write_text(json.dumps({"peer": peer, "models": models}, indent=1))

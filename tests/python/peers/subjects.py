"""A peer, how its models are built, trained and called, and a trained model of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import afm
import torch
from results import result_of
from torch import nn
from torch.overrides import TorchFunctionMode

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
LEAST_SPREAD = 0.2  # of the logits of a trained model: below it, a comparison would pass for any model


@dataclass
class Peer:
    """How a peer's models are built, trained and called.

    Args:
        name: of the package, with its version.
        build: name of a model -> a fresh one, as the peer's users make it.
        fit: trains with the peer's own trainer; returns the optimizer that did.
        batches: the training rows, as the peer's own loader gives them.
        forward: runs the model on one batch as its trainer does.
        logits: of one batch, [B].
        labels: of one batch, [B].
        epochs: of training before compression.
        held: the optimizer that a model holds, where it does; compression must have renewed it.
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
    held: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    ratios: dict[str, float] = field(default_factory=dict)
    doubles: Sequence[str] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def logits_of(self, model: nn.Module) -> torch.Tensor:
        """Of all batches, in evaluation mode, in float64."""
        model.eval()
        with torch.no_grad():
            return torch.cat([self.logits(model, batch).reshape(-1) for batch in self.batches]).double()

    def training_loss(self, model: nn.Module) -> float:
        """What its trainer minimises, over all batches, but for dropout: batch norms take a batch's own statistics."""
        norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
        running = [copy.deepcopy(norm.state_dict()) for norm in norms]
        model.eval()
        for norm in norms:
            norm.train()
        with torch.no_grad():
            logits = torch.cat([self.logits(model, batch).reshape(-1) for batch in self.batches]).double()
        for norm, state in zip(norms, running, strict=True):
            norm.load_state_dict(state)
        labels = torch.cat([self.labels(batch).reshape(-1) for batch in self.batches]).double()
        return float(nn.functional.binary_cross_entropy_with_logits(logits, labels))


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
    return Subject(peer, name, model, optimizer, logits, result_of(peer.name, name))

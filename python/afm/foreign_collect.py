"""Calibration of any PyTorch model: hooks on its dense layers while it runs over the batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from afm import _core
from afm.errors import DataError
from afm.foreign_batches import Forward, call_model, rows_of
from afm.foreign_reads import copied_weights, owners, weight_reads
from afm.foreign_record import Recorder, Sample, recorder_for
from afm.foreign_walk import HELD, ModelLayers, layers_of, unwrapped

NOT_REACHED = "not reached: no batch went through it"
ONLY_READ = "not reached: other code reads its weight without calling it"


class ModelStatistics(_core.Statistics):
    """Statistics of another library's model.

    Saving keeps what ranks and factors are computed from, and loses what is listed here.

    Args:
        left_alone: name -> reason, of the parts that cannot be factor pairs.
        linear_only: embedding bags, and layers whose weight other code reads too: no activation in their pairs.
        samples: arguments of each layer in its first call, cut to some rows, to measure the pairs on.
    """

    def __init__(
        self, *args: Any, left_alone: dict[str, str], linear_only: set[str], samples: dict[str, Sample], **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.left_alone = left_alone
        self.linear_only = linear_only
        self.samples = samples


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradient, one device; all as before afterwards, also after an exception."""
    training = [(module, module.training) for module in model.modules()]
    parallel = [(module, module.device_ids) for module in model.modules() if isinstance(module, nn.DataParallel)]
    try:
        model.eval()
        for module, _ in parallel:
            module.device_ids = []  # replicas would record at the same time
        with torch.no_grad():
            yield
    finally:
        for module, devices in parallel:
            module.device_ids = devices
        for module, mode in training:
            module.training = mode


@contextmanager
def _recording(recorders: Iterable[Recorder]) -> Iterator[None]:
    hooks = []
    try:
        for recorder in recorders:
            hooks.append(recorder.layer.register_forward_hook(recorder.add, with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def collect(model: nn.Module, batches: Iterable[Any], forward: Forward | None, whole: bool = False) -> ModelStatistics:
    """Runs a model over the batches, in evaluation mode and without gradient; it stays as it is.

    Raises DataError for no batch, or a layer whose outputs are not finite.
    """
    if isinstance(batches, torch.Tensor | Mapping):
        raise TypeError(f"batches must be an iterable of batches, got a {type(batches).__name__}; put one into a list")
    model, forward = unwrapped(model), forward or call_model
    layers = layers_of(model)
    if not layers.dense:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in layers.left_alone.items())
        raise ValueError(f"the model has no layer that can become a factor pair{': ' if reasons else ''}{reasons}")
    recorders = {name: recorder_for(layer, _length(batches)) for name, layer in layers.dense.items()}
    rows, first, read = 0, None, set()
    with _evaluating(model):
        with _recording(recorders.values()):
            for batch in batches:
                if rows == 0:
                    first = batch
                    with weight_reads(layers.dense, owners(layers.dense)) as read:
                        forward(model, batch)
                else:
                    forward(model, batch)
                rows += rows_of(batch)
        if rows == 0:
            raise DataError("afm.compress must be given at least one batch, got none; is the iterator used up?")
        held = _held_elsewhere(model, {name: layers.dense[name] for name in read}, forward, first)
    for name, recorder in recorders.items():
        if not recorder.reached:
            layers.leave(name, ONLY_READ if name in read else NOT_REACHED)
        elif name in held:
            layers.leave(name, HELD)
    return _statistics(model, layers, recorders, rows, read, whole)


def _length(batches: Iterable[Any]) -> int | None:
    try:
        return len(batches)
    except TypeError:
        return None


def _held_elsewhere(model: nn.Module, read: dict[str, nn.Module], forward: Forward, batch: Any) -> set[str]:
    """Of the layers whose weight other code reads, those where it does not get it from the layer."""
    if not read:
        return set()
    watched = owners(read)
    with copied_weights(read), weight_reads(read, watched) as held:
        forward(model, batch)
    return held


def _statistics(
    model: nn.Module, layers: ModelLayers, recorders: dict[str, Recorder], rows: int, read: set[str], whole: bool
) -> ModelStatistics:
    parameters = list(model.parameters())
    parameter_bytes = sum(p.nbytes for p in parameters)
    return ModelStatistics(
        {name: recorders[name].finish(name) for name in layers.dense},
        rows=rows,
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=parameter_bytes,
        bytes=parameter_bytes + sum(b.nbytes for b in model.buffers()),
        unreached=sorted(layers.left_alone),
        whole_training_set=whole,
        left_alone=dict(layers.left_alone),
        linear_only={n for n, layer in layers.dense.items() if n in read or isinstance(layer, nn.EmbeddingBag)},
        samples={name: recorders[name].sample for name in layers.dense},
    )

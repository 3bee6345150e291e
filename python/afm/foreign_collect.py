"""Calibration of any PyTorch model: hooks on its dense layers, moments of their outputs in C++."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from afm import _core
from afm.errors import DataError
from afm.foreign_walk import ModelLayers

NOT_REACHED = "not reached: no batch went through it, or other code reads its weight without calling it"
SAMPLE_ROWS = 1024  # of a layer's inputs are kept, to measure its factor pair on
SKIPPED_SHARE = 1e-3  # of rows that may be non-finite

Forward = Callable[[nn.Module, Any], Any]


def call_model(model: nn.Module, batch: Any) -> Any:
    """A tensor is the argument, a tuple or list are the arguments; a dict is the only argument or the keywords."""
    if isinstance(batch, Mapping):
        return model(batch) if _takes_one_argument(model, batch) else model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def _takes_one_argument(model: nn.Module, batch: Mapping[str, Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in inspect.signature(model.forward).parameters.values() if p.kind in kinds]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    only = required if required else positional
    return len(only) == 1 and only[0].name not in batch


class LinearRecorder:
    """Moments of the outputs of one linear layer, over all of its calls."""

    def __init__(self, layer: nn.Linear):
        self.layer = layer
        self.output = _core.Moments()
        self.sample: torch.Tensor | None = None  # inputs of the first call

    @property
    def reached(self) -> bool:
        return self.sample is not None

    # The rows are reduced here: an in-place activation overwrites them next.
    def add(self, _module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor) -> None:
        rows = output.detach().reshape(-1, self.layer.out_features)
        if rows.shape[0] == 0:
            return
        if self.sample is None:
            inputs = (args[0] if args else kwargs["input"]).detach()
            self.sample = inputs.reshape(-1, self.layer.in_features)[:SAMPLE_ROWS].clone()
        self.output.add(rows if rows.dtype == torch.float64 else rows.float())

    def finish(self, name: str) -> _core.LayerStatistics:
        moments, layer = self.output, self.layer
        if moments.skipped > SKIPPED_SHARE * (moments.count + moments.skipped):
            raise DataError(
                f"the outputs of {name} must be finite; {moments.skipped} of {moments.count + moments.skipped:.0f} "
                "rows are not"
            )
        return _core.LayerStatistics(
            in_features=layer.in_features,
            out_features=layer.out_features,
            bias=layer.bias is not None,
            output=[moments],
        )


class EmbeddingRecorder:
    """How often each id of one table was looked up; the moments follow from that and the table."""

    def __init__(self, layer: nn.Embedding):
        self.layer = layer
        self.counts = torch.zeros(layer.num_embeddings, dtype=torch.float64, device=layer.weight.device)
        self.sample: torch.Tensor | None = None  # ids of the first call

    @property
    def reached(self) -> bool:
        return self.sample is not None

    def add(self, _module: nn.Module, args: tuple, kwargs: dict, _output: torch.Tensor) -> None:
        ids = (args[0] if args else kwargs["input"]).detach().reshape(-1)
        if ids.numel() == 0:
            return
        if self.sample is None:
            self.sample = ids[:SAMPLE_ROWS].clone()
        self.counts += torch.bincount(ids, minlength=self.layer.num_embeddings)

    def finish(self, _name: str) -> _core.LayerStatistics:
        layer = self.layer
        return _core.LayerStatistics(
            is_embedding=True,
            cardinalities=[layer.num_embeddings],
            embedding_dim=layer.embedding_dim,
            id_counts=[self.counts.cpu()],
            output=[table_moments(layer, self.counts)],
        )


def table_moments(layer: nn.Embedding, counts: torch.Tensor) -> _core.Moments:
    """Of the rows as often as they were looked up.

    With a padding_idx, of their differences from its row, in both signs, so that the mean is zero and the covariance is
    the second moment: that row is then represented by zeros, exactly.
    """
    moments = _core.Moments()
    table = layer.weight.detach()
    table = table if table.dtype == torch.float64 else table.float()
    if layer.padding_idx is None:
        moments.add_weighted(table, counts)
        return moments
    differences = table - table[layer.padding_idx]
    moments.add_weighted(differences, counts)
    moments.add_weighted(-differences, counts)
    return moments


Recorder = LinearRecorder | EmbeddingRecorder


@contextmanager
def _recording(model: nn.Module, recorders: Iterable[Recorder]) -> Iterator[None]:
    """Evaluation mode, no gradient, hooks; all as before afterwards, also after an exception."""
    training = [(module, module.training) for module in model.modules()]
    hooks = []
    try:
        model.eval()
        for recorder in recorders:
            hooks.append(recorder.layer.register_forward_hook(recorder.add, with_kwargs=True))
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training:
            module.training = mode


@dataclass
class Calibration:
    """What the batches showed: statistics of the layers, and a few inputs of each."""

    statistics: _core.Statistics
    samples: dict[str, torch.Tensor]


def collect(model: nn.Module, layers: ModelLayers, batches: Iterable[Any], forward: Forward) -> Calibration:
    """Runs the model over the batches. Layers that none of them reached move to `layers.left_alone`."""
    recorders: dict[str, Recorder] = {
        name: EmbeddingRecorder(layer) if isinstance(layer, nn.Embedding) else LinearRecorder(layer)
        for name, layer in layers.dense.items()
    }
    count = 0
    with _recording(model, recorders.values()):
        for batch in batches:
            forward(model, batch)
            count += 1
    if count == 0:
        raise DataError("afm.compress must be given at least one batch, got none; is the iterator used up?")
    for name, recorder in recorders.items():
        if not recorder.reached:
            layers.leave(name, NOT_REACHED)
    parameters = list(model.parameters())
    parameter_bytes = sum(p.nbytes for p in parameters)
    statistics = _core.Statistics(
        {name: recorders[name].finish(name) for name in layers.dense},
        rows=count,
        parameters=sum(p.numel() for p in parameters),
        parameter_bytes=parameter_bytes,
        bytes=parameter_bytes + sum(b.nbytes for b in model.buffers()),
        unreached=sorted(layers.left_alone),
    )
    return Calibration(statistics, {name: recorders[name].sample for name in layers.dense})

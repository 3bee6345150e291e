"""What the hook on a dense layer adds up: moments of its outputs in C++, counts of ids, a few inputs."""

from __future__ import annotations

import torch
from torch import nn

from afm import _core
from afm.errors import DataError

SAMPLE_ROWS = 1024  # of a layer's inputs are kept, to measure its factor pair on,
LEAST_SAMPLE = 1 << 16  # if they are not more numbers than this, or than the layer's covariance has
SKIPPED_SHARE = 1e-3  # of rows that may be non-finite
ROWS_PER_RANK = 20  # calibration rows that a layer's moments take where there are more: 20 min(inputs, outputs),
LEAST_ROWS = 4096  # or so many,
LEAST_VALUES = 1 << 20  # or so many outputs: narrow layers are cheap
MANY_IDS = 8  # times those of a call: a histogram of all ids would then cost more than adding one by one
LEAST_PIECE = 128  # rows that are added at a time, or 2 m where that is more: merging costs m^2

Sample = tuple[torch.Tensor | None, ...]  # arguments of the layer


def rows_of_output(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """[rows, outputs] of a dense layer or its pair."""
    if isinstance(layer, nn.Conv1d):
        return output.movedim(-2, -1).reshape(-1, output.shape[-2])
    return output.reshape(-1, output.shape[-1])


def _wide(rows: torch.Tensor, exact: bool = False) -> torch.Tensor:
    return rows.double() if exact or rows.dtype == torch.float64 else rows.float()


def _first(args: tuple, kwargs: dict) -> torch.Tensor:
    return (args[0] if args else kwargs["input"]).detach()


class Thinning:
    """Which share of a layer's rows its moments take.

    They cost as much as the layer's forward, so of many rows an even share is enough: some rows of some calls, in
    pieces that are not too small. Where the number of calls is not known, the share falls as the rows get more, and
    each row has the weight of those that it stands for.
    """

    def __init__(self, outputs: int, rank: int, calls: int | None):
        self.wanted = max(ROWS_PER_RANK * rank, LEAST_ROWS, LEAST_VALUES // outputs)
        self.piece = max(2 * outputs, LEAST_PIECE)
        self.expected, self.calls = calls, 0
        self.seen = 0  # rows
        self.stride = 1
        self.until_next = 0  # calls

    def next(self, rows: int, samples: int) -> tuple[slice, float] | None:
        """What to take along the first dimension of a call's tensors, and the weight of each row; None: nothing."""
        if self.expected is None:
            self.stride = max(1, 2 * self.seen // self.wanted)
        elif self.calls == 0:
            self.stride = max(1, rows * self.expected // self.wanted)
        self.calls += 1
        self.seen += rows
        if self.until_next > 0:
            self.until_next -= 1
            return None
        inside = min(self.stride, samples, max(1, rows // self.piece))
        every = max(1, round(self.stride / inside))
        self.until_next = every - 1
        return slice(self.calls % inside, None, inside), 1.0 if self.expected is not None else float(inside * every)


class OutputRecorder:
    """Of a linear layer, a convolution of width 1 or an embedding bag, over all of its calls."""

    def __init__(self, layer: nn.Module, calls: int | None):
        self.layer = layer
        self.outputs = layer.weight.shape[1 if isinstance(layer, nn.EmbeddingBag) else 0]
        # The covariance of more outputs than inputs is singular, and must be so to the last digits of its eigenvalues.
        self.exact = self.outputs > layer.weight.shape[1]
        self.thinning = Thinning(self.outputs, min(layer.weight.shape[:2]), calls)
        self.output = _core.Moments()
        self.sample: Sample | None = None  # of the first call
        self.input_sum: torch.Tensor | float = 0.0
        self.weight = 0.0  # of the rows in input_sum
        self.centre: torch.Tensor | None = None
        self.radius: torch.Tensor | None = None  # of the rows around the centre

    @property
    def reached(self) -> bool:
        return self.sample is not None

    # The rows are reduced here: an in-place activation overwrites them next.
    def add(self, _module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor) -> None:
        if output.numel() == 0:
            return
        if self.sample is None:
            self.sample = self._sample(args, kwargs)
        batched = output.dim() == 3 or (output.dim() == 2 and not isinstance(self.layer, nn.Conv1d))
        share = self.thinning.next(output.numel() // self.outputs, output.shape[0] if batched else 1)
        if share is None:
            return
        inputs, (taken, weight) = _first(args, kwargs), share
        if batched:
            output, inputs = output[taken], inputs if isinstance(self.layer, nn.EmbeddingBag) else inputs[taken]
        self._add_rows(_wide(rows_of_output(self.layer, output.detach()), self.exact), inputs, weight)

    def _add_rows(self, rows: torch.Tensor, inputs: torch.Tensor, weight: float) -> None:
        if isinstance(self.layer, nn.EmbeddingBag):
            add_both_signs(self.output, rows, rows.new_full((len(rows),), weight))
            return
        skipped = self.output.skipped
        add_weighted(self.output, rows, weight)
        inputs = rows_of_output(self.layer, inputs)
        if self.output.skipped > skipped:
            finite = rows.isfinite().all(1)
            rows, inputs = rows[finite], inputs[finite]
        self.input_sum = self.input_sum + weight * _wide(inputs).sum(0).double()
        self.weight += weight * len(rows)
        if self.centre is None and len(rows):
            self.centre, self.radius = rows.mean(0), rows.new_zeros(())
        if len(rows):
            self.radius = torch.maximum(self.radius, torch.linalg.vector_norm(rows - self.centre, dim=1).max())

    def _sample(self, args: tuple, kwargs: dict) -> Sample:
        if isinstance(self.layer, nn.EmbeddingBag):
            return _bag_sample(self.layer, args, kwargs)
        inputs = _first(args, kwargs)
        if isinstance(self.layer, nn.Linear):
            inputs = inputs.reshape(-1, inputs.shape[-1])
        elif inputs.dim() == 2:  # a convolution without batch
            inputs = inputs[None]
        most = max(self.outputs**2, LEAST_SAMPLE)
        return (inputs[: max(1, min(SAMPLE_ROWS, most * len(inputs) // inputs.numel()))].clone(),)

    def finish(self, name: str) -> _core.LayerStatistics:
        moments, layer = self.output, self.layer
        if moments.skipped > SKIPPED_SHARE * (moments.count + moments.skipped):
            raise DataError(
                f"the outputs of {name} must be finite; {moments.skipped} of {moments.count + moments.skipped:.0f} "
                "rows are not"
            )
        if isinstance(layer, nn.EmbeddingBag):  # a linear layer on how often a bag holds each id
            return _core.LayerStatistics(
                in_features=layer.num_embeddings, out_features=layer.embedding_dim, bias=False, output=[moments]
            )
        off_centre = (self.centre.double().cpu() - moments.mean.cpu()).norm()
        return _core.LayerStatistics(
            in_features=layer.weight.shape[1],
            out_features=layer.weight.shape[0],
            bias=layer.bias is not None,
            input_mean=(self.input_sum / self.weight).cpu(),
            output=[moments],
            radius=float(self.radius + off_centre.to(self.radius.device)),
        )


class EmbeddingRecorder:
    """How often each id of one table was looked up; the moments follow from that and the table."""

    def __init__(self, layer: nn.Embedding, _calls: int | None):
        self.layer = layer
        self.counts = torch.zeros(layer.num_embeddings, dtype=torch.float64, device=layer.weight.device)
        self.sample: Sample | None = None  # ids of the first call

    @property
    def reached(self) -> bool:
        return self.sample is not None

    def add(self, _module: nn.Module, args: tuple, kwargs: dict, _output: torch.Tensor) -> None:
        ids = _first(args, kwargs).reshape(-1)
        if ids.numel() == 0:
            return
        if self.sample is None:
            self.sample = (ids[:SAMPLE_ROWS].clone(),)
        if self.layer.num_embeddings > MANY_IDS * len(ids):
            self.counts.index_add_(0, ids, self.counts.new_ones(()).expand(len(ids)))
        else:
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
    """Of the rows in proportion to how often they were looked up, with total weight 1.

    With a padding_idx, of their differences from its row, in both signs, so that the mean is zero and the covariance is
    the second moment: that row is then represented by zeros, exactly.
    """
    moments = _core.Moments()
    table, share = _wide(layer.weight.detach()), counts / counts.sum()
    if layer.padding_idx is None:
        moments.add_weighted(table, share)
    else:
        add_both_signs(moments, table - table[layer.padding_idx], share)
    return moments


def add_weighted(moments: _core.Moments, rows: torch.Tensor, weight: float) -> None:
    if weight == 1.0:
        moments.add(rows)
    else:
        moments.add_weighted(rows, rows.new_full((len(rows),), weight))


def add_both_signs(moments: _core.Moments, rows: torch.Tensor, weights: torch.Tensor) -> None:
    """The covariance is then the second moment of the rows, and the mean zero."""
    moments.add_weighted(rows, weights / 2)
    moments.add_weighted(-rows, weights / 2)


def _bag_sample(layer: nn.EmbeddingBag, args: tuple, kwargs: dict) -> Sample:
    given = {**dict(zip(("input", "offsets", "per_sample_weights"), args, strict=False)), **kwargs}
    ids, offsets, weights = given["input"], given.get("offsets"), given.get("per_sample_weights")
    if offsets is None:
        return ids[:SAMPLE_ROWS].clone(), None, None if weights is None else weights[:SAMPLE_ROWS].detach().clone()
    bags = len(offsets) - layer.include_last_offset
    end = int(offsets[SAMPLE_ROWS]) if bags > SAMPLE_ROWS else len(ids)
    kept = offsets[: SAMPLE_ROWS + layer.include_last_offset].clone()
    return ids[:end].clone(), kept, None if weights is None else weights[:end].detach().clone()


Recorder = OutputRecorder | EmbeddingRecorder


def recorder_for(layer: nn.Module, calls: int | None) -> Recorder:
    return (EmbeddingRecorder if isinstance(layer, nn.Embedding) else OutputRecorder)(layer, calls)

"""What compress() did to a model, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from afm.foreign_optimizer import check_optimizer
from afm.plan import RankPlan

OPTIMIZER_NOTE = "An optimizer made before holds the old layers: make a new one, and see report.check_optimizer."


@dataclass(frozen=True)
class LayerReport:
    """One layer. The errors are mean squared distances of its outputs from the dense ones, for original inputs.

    Args:
        name: the first of its names.
        shape: outputs x inputs, or ids x width of an embedding.
        rank: None where it stays dense, because a pair would not pay or was not asked for.
        kept_energy: share of the output's variance; of a table with a padding_idx, of its distance from that row, of an
            embedding bag, of its second moment.
        predicted_error: over all calibration rows, without what an activation cuts off.
        measured_error: of the new layer, over at most 1024 rows of its first call; nan without a sample of them, as
            after statistics were saved.
        parameters_before: of the dense layer.
        parameters_after: of the pair; a shared basis counts in the first table that has it.
    """

    name: str
    shape: tuple[int, int]
    rank: int | None
    kept_energy: float
    predicted_error: float
    measured_error: float
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True)
class CompressionReport:
    """Prints as a table.

    Args:
        layers: those that the calibration batches reached.
        left_alone: name -> reason, of the other layers, and of parameters that are in no layer, such as a cross
            network's kernels.
        left_alone_parameters: name -> how many parameters each of these has.
        plan: the ranks; compress(..., plan=report.plan) does the same again.
        parameters_before, parameters_after, bytes_before, bytes_after: of the whole model; bytes include buffers.
        optimizers: attribute -> what was done to the optimizer that it holds.
        notes: attribute -> what was done to it, or is to be looked after: it held old layers or their parameters.
        model: the compressed model.
    """

    layers: list[LayerReport]
    left_alone: dict[str, str]
    left_alone_parameters: dict[str, int]
    plan: RankPlan
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    optimizers: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    model: nn.Module = field(default_factory=nn.Identity, repr=False, compare=False)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises ValueError unless the optimizer holds the parameters of the compressed model."""
        check_optimizer(self.model, optimizer)

    def left_alone_share(self, name: str) -> float:
        """Of the parameters before, those that were left alone under this name."""
        return self.left_alone_parameters[name] / max(self.parameters_before, 1)

    def __str__(self) -> str:
        header = ["layer", "shape", "rank", "kept", "predicted", "measured", "before", "after"]
        lines = _aligned([header, *(_cells(layer) for layer in self.layers)])
        ratio = self.parameters_before / max(self.parameters_after, 1)
        lines.append(f"{self.parameters_before:,} -> {self.parameters_after:,} parameters ({ratio:.2f} x)")
        lines += [
            f"left alone: {name or 'the model'} ({100 * self.left_alone_share(name):.1f} %): {reason}"
            for name, reason in self.left_alone.items()
        ]
        lines += [f"{attribute}: {what}" for attribute, what in {**self.notes, **self.optimizers}.items()]
        return "\n".join([*lines, OPTIMIZER_NOTE])


def _cells(layer: LayerReport) -> list[str]:
    return [
        layer.name or "the model",
        f"{layer.shape[0]:,} x {layer.shape[1]:,}",
        "dense" if layer.rank is None else str(layer.rank),
        f"{100 * layer.kept_energy:.2f} %",
        f"{layer.predicted_error:.3g}",
        f"{layer.measured_error:.3g}",
        f"{layer.parameters_before:,}",
        f"{layer.parameters_after:,}",
    ]


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]

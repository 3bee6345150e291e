"""The pictures of a report, as SVG text that needs no network and no files beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

INK, FAINT, BLUE, ORANGE, GREEN = "#1f2933", "#9aa5b1", "#2563eb", "#ea580c", "#059669"
COLOURS = (BLUE, ORANGE, GREEN, "#7c3aed", "#db2777", "#0891b2")
STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e4e7eb",
    "svg.hashsalt": "libafm",
    "legend.frameon": False,
}


def svg_of(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def training_curves(histories: dict[str, list[dict]]) -> str:
    """Training loss and validation AUC per epoch, one line per run.

    Args:
        histories: run name -> its epochs, each with epoch, train_loss, valid_auc.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4))
        loss, auc = figure.subplots(1, 2)
        for (name, epochs), colour in zip(histories.items(), COLOURS, strict=False):
            numbers = [epoch["epoch"] for epoch in epochs]
            loss.plot(numbers, [epoch["train_loss"] for epoch in epochs], "o-", ms=3, color=colour, label=name)
            auc.plot(numbers, [epoch["valid_auc"] for epoch in epochs], "o-", ms=3, color=colour, label=name)
        decorate(loss, "Training loss", "epoch", "logloss")
        decorate(auc, "Validation AUC", "epoch", "AUC")
        auc.legend(loc="lower right")
        figure.tight_layout()
        return svg_of(figure)


def size_against_auc(curves: dict[str, Sequence[tuple[float, float]]], marks: dict[str, tuple[float, float]]) -> str:
    """Test AUC over model size in bytes (logarithmic).

    Args:
        curves: name -> (bytes, AUC) points joined by a line.
        marks: name -> one labelled (bytes, AUC) point.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4))
        axes = figure.subplots()
        for (name, points), colour in zip(curves.items(), (FAINT, ORANGE), strict=False):
            sizes, aucs = zip(*sorted(points), strict=True)
            axes.plot(sizes, aucs, "o--", ms=4, color=colour, label=name)
        for (name, (size, auc)), colour in zip(marks.items(), COLOURS, strict=False):
            axes.plot([size], [auc], "D", ms=9, color=colour, label=name, zorder=3)
        return finish_sizes(figure, axes, "model size")


def frontier(curves: dict[str, Sequence[tuple[float, float, float]]], levels: dict[str, float]) -> str:
    """Test AUC with its spread over model size in bytes (logarithmic).

    Args:
        curves: name -> (bytes, mean AUC, standard deviation) points joined by a line.
        levels: name -> an AUC that is drawn as a level line.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 4.6))
        axes = figure.subplots()
        for (name, points), colour in zip(curves.items(), COLOURS, strict=False):
            sizes, aucs, spreads = zip(*sorted(points), strict=True)
            axes.errorbar(sizes, aucs, spreads, fmt="o-", ms=4, capsize=2, color=colour, label=name)
        for (name, auc), style in zip(levels.items(), ("-", "--", ":"), strict=False):
            axes.axhline(auc, color=FAINT, linestyle=style, label=name)
        return finish_sizes(figure, axes, "model file")


def finish_sizes(figure: Figure, axes: Axes, what: str) -> str:
    """The axis of bytes (logarithmic), title and legend of a picture of sizes."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: human_bytes(value))
    axes.xaxis.set_minor_locator(NullLocator())
    decorate(axes, "Size against quality", what, "test AUC")
    axes.legend(loc="lower right")
    figure.tight_layout()
    return svg_of(figure)


def spectra(layers: Sequence[dict]) -> str:
    """Eigenvalues of each layer's output with the kept ones filled.

    Args:
        layers: dicts with name, eigenvalues (descending), rank, dense, kept_energy.
    """
    layers = [layer for layer in layers if len(layer["eigenvalues"]) > 1]  # a single output has no spectrum
    columns = 4
    rows = max(1, -(-len(layers) // columns))
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 2.1 * rows))
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, layer in zip(grid.flat, layers, strict=False):
            draw_spectrum(axes, layer)
        for axes in list(grid.flat)[len(layers) :]:
            axes.set_visible(False)
        figure.tight_layout()
        return svg_of(figure)


def draw_spectrum(axes: Axes, layer: dict) -> None:
    values = layer["eigenvalues"]
    top = max(values[0], 1e-300) if values else 1.0
    heights = [max(value / top, 1e-6) for value in values]
    numbers = list(range(1, len(heights) + 1))
    kept = len(heights) if layer["dense"] else layer["rank"]
    axes.fill_between(numbers, heights, 1e-6, color="#e4e7eb", step="mid")
    axes.fill_between(numbers[:kept], heights[:kept], 1e-6, color=FAINT if layer["dense"] else BLUE, step="mid")
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 2)
    choice = "dense" if layer["dense"] else f"{layer['rank']} of {len(heights)}, {100 * layer['kept_energy']:.1f} %"
    axes.set_title(f"{layer['name']}\n{choice}", fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.tick_params(labelsize=7)


def decorate(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, axis="y")


def human_bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}"
        size /= 1000
    return ""

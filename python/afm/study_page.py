"""report.json, report.md and report.html of a study."""

from __future__ import annotations

import json
from pathlib import Path

from . import plots
from .report import document, escape, section
from .study import CALIBRATION, MEASURED, PREDICTED, RANKS, ROUNDING
from .text_files import write_text

COLUMNS = (
    "model",
    "test AUC",
    "AUC - E",
    "AUC - T",
    "logloss",
    "calibration error",
    "file bytes",
    "times smaller",
    "parameters",
    "multiply-adds",
    "µs/row",
)
CHURN = ("model", "flipped", "mean &#124;p - q&#124;", "mean KL", "AUC, unseen value")
RISE_TITLE = "Rise of the logloss by compression alone, before training on"
RISE_TEXT = (
    "Predicted to second order on training rows, for ranks (with fewer units) and for rounding to integers. What comes "
    "true of it is KL(base || model). The logloss of labels t rises by that and by the mean of (p - t)(s' - s), which "
    "is 0 only where the base's logits s are at a minimum of the logloss; training with L2 ends elsewhere."
)
RISE = ("model", "ranks", "+ rounding", "= predicted", "KL on calibration rows", "measured on validation rows")
RISE_MEANS = (RANKS, ROUNDING, PREDICTED, CALIBRATION)
CURVES = {"bytes": "libafm", "ranks": "ranks alone"}


def write_pages(summary: dict, output: Path) -> None:
    write_text(output / "report.json", json.dumps(summary, indent=1) + "\n")
    write_text(output / "report.md", markdown(summary))
    write_text(output / "report.html", html_page(summary))


def title(summary: dict) -> str:
    settings = summary["settings"]
    return f"{settings['kind']} on {Path(settings['folder']).name}: size against quality"


def explanation(summary: dict) -> str:
    settings = summary["settings"]
    given = settings.get("teachers")
    teachers = f"{len(given)} given model(s)" if given else "the bases of all seeds"
    return (
        f"Mean ± standard deviation over {len(settings['seeds'])} seeds; {summary['test_rows']:,} test rows, looked at "
        f"once per model. E is the base trained on for the same {settings['extra_epochs']} extra epochs, T the same "
        f"with the teacher (the mean logit of {teachers}) that every compressed model has unless its line "
        "says otherwise. Differences are paired by seed."
    )


def rows(summary: dict) -> list[list[str]]:
    return [row(line) for line in summary["lines"]]


def row(line: dict) -> list[str]:
    if "refused" in line:
        return [line["name"], f"not possible: {line['refused']}"] + [""] * (len(COLUMNS) - 2)
    return [
        line["name"],
        with_spread(line["auc"], 4),
        signed(line.get("minus_E")),
        signed(line.get("minus_T")),
        f"{line['logloss']['mean']:.4f}",
        f"{line['calibration_error']['mean']:.4f}",
        f"{line['bytes']['mean']:,.0f}",
        f"{line['times']:.1f}",
        f"{line['parameters']['mean']:,.0f}",
        f"{line['multiply_adds']['mean']:,.0f}",
        f"{line['microseconds_per_row']['mean']:.2f}",
    ]


def with_spread(value: dict, digits: int) -> str:
    return f"{value['mean']:.{digits}f} ± {value['sd']:.{digits}f}"


def signed(value: dict | None) -> str:
    return "" if value is None else f"{value['mean']:+.4f} ± {value['sd']:.4f}"


def churn_rows(summary: dict) -> list[list[str]]:
    return [
        [
            line["name"],
            f"{100 * line['flipped']['mean']:.2f} %",
            f"{line['mean_difference']['mean']:.4f}",
            f"{line['mean_kl']['mean']:.4f}",
            "" if line["auc_unseen"] is None else with_spread(line["auc_unseen"], 4),
        ]
        for line in summary["lines"]
        if "refused" not in line
    ]


def rise_rows(summary: dict) -> list[list[str]]:
    return [
        [line["name"], *(mean_or_blank(line.get(rise)) for rise in RISE_MEANS), with_spread(line[MEASURED], 4)]
        for line in summary["lines"]
        if PREDICTED in line
    ]


def mean_or_blank(value: dict | None) -> str:
    return "" if value is None else f"{value['mean']:.4f}"


def decile_rows(summary: dict) -> list[list[str]]:
    return [
        [line["name"], *("" if auc is None else f"{auc:.4f}" for auc in line["auc_by_decile"])]
        for line in summary["lines"]
        if "refused" not in line
    ]


DECILES = ("model", *(f"{10 * i}-{10 * i + 10} %" for i in range(10)))


def markdown_table(columns: tuple[str, ...], lines: list[list[str]]) -> str:
    head = ["| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    return "\n".join(head + ["| " + " | ".join(cells) + " |" for cells in lines])


def markdown(summary: dict) -> str:
    return "\n\n".join(
        [
            f"# {title(summary)}",
            explanation(summary),
            markdown_table(COLUMNS, rows(summary)),
            f"## {RISE_TITLE}",
            RISE_TEXT,
            markdown_table(RISE, rise_rows(summary)),
            "## How far answers move from the base's",
            markdown_table(CHURN, churn_rows(summary)),
            "## AUC by how rare the rarest value of a row is (rarest tenth first)",
            markdown_table(DECILES, decile_rows(summary)),
            "",
        ]
    )


def html_table(columns: tuple[str, ...], lines: list[list[str]]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def html_page(summary: dict) -> str:
    parts = [
        f"<h1>{escape(title(summary))}</h1>",
        section("Size against quality", explanation(summary), plots.frontier(curves(summary), controls(summary))),
        section("Every line", "", html_table(COLUMNS, rows(summary))),
        section(RISE_TITLE, RISE_TEXT, html_table(RISE, rise_rows(summary))),
        section("How far answers move from the base's", "", html_table(CHURN, churn_rows(summary))),
        section("AUC by how rare the rarest value of a row is", "", html_table(DECILES, decile_rows(summary))),
    ]
    return document(title(summary), parts)


def curves(summary: dict) -> dict[str, list[tuple[float, float, float]]]:
    """Name -> (bytes, mean AUC, spread)."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for line in summary["lines"]:
        name = curve_of(line)
        if name and "refused" not in line:
            found.setdefault(name, []).append((line["bytes"]["mean"], line["auc"]["mean"], line["auc"]["sd"]))
    return found


def curve_of(line: dict) -> str:
    if line["key"].startswith("scratch-float-"):
        return "small from scratch in floats"
    if line["key"].startswith("scratch-"):
        return "small from scratch"
    if line["key"].startswith("integers-"):
        return "integers alone"
    if line["key"].endswith(("-one-shot", "-alone")):
        return ""
    return CURVES.get(line["group"], "")


def controls(summary: dict) -> dict[str, float]:
    return {line["name"]: line["auc"]["mean"] for line in summary["lines"] if line["group"] == "control"}

"""One self-contained HTML page about one compression: what it cost in quality, what it saved, and why.

The page is made from a plain dict (also saved as JSON), so that it can be drawn again without running anything.
"""

from __future__ import annotations

import html
from pathlib import Path

from . import plots
from .text_files import write_text

CSS = """
:root { --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --blue: #2563eb; --paper: #ffffff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; margin: 0 0 4px; letter-spacing: -0.02em; }
h2 { font-size: 19px; margin: 0 0 4px; }
p { margin: 4px 0 14px; color: var(--soft); max-width: 78ch; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 22px 26px; }
section { margin-top: 22px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin-top: 22px; }
.number { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px; }
.number b { display: block; font-size: 28px; letter-spacing: -0.02em; color: var(--blue); }
.number span { color: var(--soft); font-size: 14px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14.5px; }
th { text-align: right; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line); padding: 6px 10px; }
td { text-align: right; border-bottom: 1px solid var(--line); padding: 6px 10px; }
th:first-child, td:first-child { text-align: left; }
tr.ours td { background: #eff6ff; font-weight: 600; }
svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
code { background: #f0f2f5; border-radius: 4px; padding: 1px 5px; font-size: 13.5px; }
"""


def write_report(result: dict, path: str | Path) -> None:
    """Writes the page. `result` is what quickstart leaves as JSON (see quickstart.py for its keys)."""
    write_text(path, page(result))


def page(result: dict) -> str:
    parts = [
        f"<h1>{escape(result['title'])}</h1>",
        f"<p>{escape(result['subtitle'])}</p>",
        numbers(result),
        section("What it cost, what it saved", result["explanation"], stage_table(result["stages"])),
        section(
            "Size against quality",
            "The grey line is compression alone at several budgets, without any training after it. The diamonds are "
            "the models of the table above.",
            plots.size_against_auc(curves(result), marks(result)),
        ),
        section(
            "Training",
            "Validation AUC decides which epoch's weights are kept. The base trained on for the same extra epochs is "
            "the control: a compressed model that beats only the untouched base has shown nothing.",
            plots.training_curves(result["histories"]),
        ),
        section(
            "Why it works: the outputs are low-rank",
            "Eigenvalues of the covariance of each layer's output on the training data, relative to the largest. Blue "
            "is kept; the mean squared error of a layer is exactly the sum of what is not. A grey one stays dense: "
            "factors would not make it smaller.",
            plots.spectra(result["layers"]),
        ),
        section(
            "Layer by layer",
            "Parameters before and after, and the share of the output's variance that stays.",
            layer_table(result["layers"]),
        ),
        section("Reproduce", "", f"<p><code>{escape(result['command'])}</code></p><p>{escape(result['machine'])}</p>"),
    ]
    return document(result["title"], parts)


def document(title: str, parts: list[str]) -> str:
    """One self-contained page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def escape(text: object) -> str:
    return html.escape(str(text))


def section(title: str, text: str, body: str) -> str:
    paragraph = f"<p>{escape(text)}</p>" if text else ""
    return f'<section><h2>{escape(title)}</h2>{paragraph}<div class="scroll">{body}</div></section>'


def numbers(result: dict) -> str:
    base, control, small = (stage(result, name) for name in ("base", "control", "fine_tuned"))
    cards = [
        (
            f"{base['bytes'] / small['bytes']:.1f}×",
            f"smaller: {plots.human_bytes(base['bytes'])} → {plots.human_bytes(small['bytes'])}",
        ),
        (f"{small['auc'] - control['auc']:+.4f}", "test AUC against the base trained equally long"),
        (f"{small['auc'] - base['auc']:+.4f}", "test AUC against the base"),
        (f"{base['microseconds_per_row'] / small['microseconds_per_row']:.1f}×", "faster per row, same runtime"),
    ]
    return (
        '<div class="numbers">'
        + "".join(f'<div class="number"><b>{value}</b><span>{escape(what)}</span></div>' for value, what in cards)
        + "</div>"
    )


def stage(result: dict, key: str) -> dict:
    return next(item for item in result["stages"] if item["key"] == key)


def curves(result: dict) -> dict[str, list[tuple[float, float]]]:
    return {"compressed, not trained on": [(point["bytes"], point["auc"]) for point in result["curve"]]}


def marks(result: dict) -> dict[str, tuple[float, float]]:
    return {item["name"]: (item["bytes"], item["auc"]) for item in result["stages"]}


def stage_table(stages: list[dict]) -> str:
    head = (
        "<tr><th>model</th><th>test AUC</th><th>logloss</th><th>parameters</th><th>bytes</th><th>µs per row</th></tr>"
    )
    rows = [
        f"<tr{' class=ours' if item['key'] == 'fine_tuned' else ''}><td>{escape(item['name'])}</td>"
        f"<td>{item['auc']:.4f}</td>"
        f"<td>{item['logloss']:.4f}</td><td>{item['parameters']:,}</td><td>{item['bytes']:,}</td>"
        f"<td>{item['microseconds_per_row']:.2f}</td></tr>"
        for item in stages
    ]
    return f"<table>{head}{''.join(rows)}</table>"


def layer_table(layers: list[dict]) -> str:
    columns = ("layer", "shape", "rank", "kept variance", "parameters before", "after")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in columns)}</tr>"
    rows = [
        f"<tr><td>{escape(item['name'])}</td><td>{item['rows']:,} × {item['columns']:,}</td>"
        f"<td>{'dense' if item['dense'] else item['rank']}</td><td>{100 * item['kept_energy']:.2f} %</td>"
        f"<td>{item['parameters_before']:,}</td><td>{item['parameters_after']:,}</td></tr>"
        for item in layers
    ]
    return f"<table>{head}{''.join(rows)}</table>"

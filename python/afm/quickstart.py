"""`afm quickstart`: the whole story on real data in one command.

Prepare MovieLens-100k, train a DeepFM, train it on for the same extra epochs (the control), compress it, train the
compressed model on, and report. Leaves report.html, report.json and every model file.
"""

from __future__ import annotations

import copy
import json as json_text
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

import afm

from . import movielens
from .compressing import Budget, compress_model, summaries
from .console import machine, out, print_json, print_table, rows_bar, say, training_bar
from .prepare import prepare
from .report import write_report
from .synth import synth
from .text_files import write_text

MODEL = {"embedding_dim": 16, "hidden": [400, 400, 400], "dropout": 0.3}
BASE = {"epochs": 20, "batch_size": 2048, "learning_rate": 1e-3, "embedding_l2": 0.05}
EXTRA = {**BASE, "epochs": 8, "schedule": "linear", "patience": 0}
CURVE = (1.5, 2, 3, 5, 8, 12, 16)  # ratios of the one-shot curve


def quickstart(
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything this leaves.")] = Path(
        "out/quickstart"
    ),
    ratio: Annotated[float, typer.Option(help="Budget: parameters before / after, above 1.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Fresh weights, order of rows, dropout.")] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Use the generator instead of MovieLens-100k.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the whole story on real data, in a few minutes.

    Prepares MovieLens-100k, trains a DeepFM, compresses it, trains it on, and compares the test AUC with that of the
    base trained on for as long. Leaves report.html, report.json, the plan and every model in the output folder.

    The data comes from the PyPI wheel of recbole; where that cannot be had, a table is generated instead.
    """
    if not ratio > 1:
        raise ValueError(f"--ratio must be above 1, got {ratio:g}")
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    source, folder = get_data(output, synthetic)
    result = story(folder, output, ratio, seed, device)
    result["title"] = f"DeepFM on {source}, made {result['shrunk']:.1f} times smaller"
    result["command"] = f"afm quickstart --ratio {ratio:g} --seed {seed} --device {device}" + (
        " --synthetic" if synthetic else ""
    )
    result["machine"] = f"{machine()}; {time.monotonic() - started:.0f} s in all"
    write_text(output / "report.json", json_text.dumps(result, indent=2))
    write_report(result, output / "report.html")
    if json:
        print_json(result)
        return
    show(result, output)


def get_data(output: Path, synthetic: bool) -> tuple[str, Path]:
    """Returns what the data is called and its dataset folder; both are kept from an earlier run."""
    for name, table, schema, make in (
        ("MovieLens-100k", "movielens.csv", movielens.movielens_schema(), movielens.download_movielens),
        ("a generated table", "synthetic.csv", None, lambda path: synth(path, rows=100_000, max_cardinality=20_000)),
    ):
        if synthetic and name == "MovieLens-100k":
            continue
        try:
            if not (output / table).exists():
                say(f"quickstart: getting {name}")
                make(output / table)
        except afm.IoError as error:
            say(f"quickstart: {error}; a generated table is used instead")
            continue
        folder = output / Path(table).stem
        with rows_bar("preparing") as advance:
            done = prepare(
                output / table, folder, schema=schema, on_progress=lambda _, rows, advance=advance: advance(rows)
            )
        say(f"quickstart: {name}: " + ", ".join(f"{split} {rows:,} rows" for split, rows in done.rows.items()))
        return name, folder
    raise AssertionError("the generator needs no network")


def story(folder: Path, output: Path, ratio: float, seed: int, device: str) -> dict:
    train_set, valid_set, test_set = (afm.Dataset.open(folder, split) for split in ("train", "valid", "test"))
    torch.manual_seed(seed)
    base = afm.DeepFM(train_set.schema, **MODEL)

    def fit(model: afm.Model, name: str, options: dict, teacher: afm.Model | None = None) -> list[dict]:
        settings = afm.TrainOptions(**options, seed=seed, device=device)
        with training_bar(name) as on_progress:
            history = afm.train(model, train_set, valid_set, settings, teacher=teacher, on_progress=on_progress)
        model.notes = {**model.notes, "training": settings.to_json()}
        return [epoch.to_dict() for epoch in history.epochs]

    histories = {"base": fit(base, "base", BASE)}
    statistics_file = output / "statistics.safetensors"
    statistics = afm.collect_statistics(base, train_set, whole_training_set=True)
    statistics.save(str(statistics_file))
    one_shot, used = compress_model(base, train_set, Budget(ratio=ratio), statistics_file=statistics_file)
    curve = [one_shot_point(base, statistics, each, test_set) for each in CURVE]

    control, fine_tuned = copy.deepcopy(base), copy.deepcopy(one_shot)
    histories["base, trained on"] = fit(control, "base, trained on", EXTRA, teacher=base)
    histories["compressed, trained on"] = fit(fine_tuned, "compressed, trained on", EXTRA, teacher=base)

    stages = []
    for key, name, model in (
        ("base", "base", base),
        ("control", "base, trained on as long", control),
        ("one_shot", "compressed", one_shot),
        ("fine_tuned", "compressed, trained on", fine_tuned),
    ):
        afm.save_model(model, output / f"{key}.safetensors")
        stages.append({"key": key, "name": name, **describe(model, test_set)})
    afm.write_plan(str(output / "plan.json"), used.plan)
    return {
        "shrunk": stages[0]["bytes"] / stages[3]["bytes"],
        "subtitle": (
            f"Atomic Feature Mimicking, {ratio:g}x fewer parameters: ranks by energy, one budget for MLP and tables."
        ),
        "explanation": (
            f"The compressed model was trained on for {EXTRA['epochs']} epochs with the base as its teacher, and so "
            "was a copy of the base: the second line is what the fourth has to be compared with. Test rows were looked "
            "at once, at the end; one seed, so differences below about 0.002 are noise."
        ),
        "stages": stages,
        "curve": curve,
        "histories": histories,
        "layers": summaries(used),
    }


def one_shot_point(base: afm.Model, statistics: afm.Statistics, ratio: float, test_set: afm.Dataset) -> dict:
    small = afm.factorize(base, statistics, afm.plan_ranks(statistics, ratio=ratio))
    return {"ratio": ratio, "bytes": afm.byte_count(small), "auc": afm.evaluate(small, test_set).auc}


def describe(model: afm.Model, dataset: afm.Dataset) -> dict:
    seen = afm.report_on(model, dataset)
    return {
        "auc": seen.metrics.auc,
        "logloss": seen.metrics.logloss,
        "parameters": seen.parameters,
        "bytes": seen.bytes,
        "microseconds_per_row": seen.microseconds_per_row,
    }


def show(result: dict, output: Path) -> None:
    rows = [
        [
            item["name"],
            f"{item['auc']:.4f}",
            f"{item['logloss']:.4f}",
            f"{item['parameters']:,}",
            f"{item['bytes']:,}",
            f"{item['microseconds_per_row']:.2f}",
        ]
        for item in result["stages"]
    ]
    print_table(result["title"], ["model", "test AUC", "logloss", "parameters", "bytes", "µs/row"], rows, highlight=3)
    out.print(f"report: {output / 'report.html'}   models and plan: {output}", markup=False, soft_wrap=True)

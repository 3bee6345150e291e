"""`afm report`: one command that holds a compressed model against everything it has to be held against."""

from __future__ import annotations

import json as json_text
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer

import afm

from .console import out, say
from .settings import apply_settings
from .study import Settings, Study, as_json
from .study_page import write_pages
from .study_table import summarize
from .study_variants import variants
from .text_files import write_text


def report(
    folder: Annotated[Path, typer.Argument(help="Dataset folder, as `afm prepare` writes it.")],
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report and every run.")],
    model: Annotated[str, typer.Option(help=f"One of: {', '.join(afm.model_names())}.")] = "deepfm",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A model or training option of the base; may repeat."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=2, metavar="<int>", help="So many, from 1 on; their bases together are the teacher.")
    ] = 4,
    ratios: Annotated[str, typer.Option(help="Budgets of parameters for ranks alone.")] = "5,10,20",
    times: Annotated[
        str, typer.Option("--bytes", help="Budgets of the model file's size, as times smaller.")
    ] = "18,32",
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Model file of any kind; may repeat. Their mean logit teaches, not that of the bases."
        ),
    ] = None,
    extra_epochs: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Of every compressed model and of its controls.")
    ] = 10,
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Lines to run, by the start of their key; may repeat.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    jobs: Annotated[int, typer.Option(min=1, metavar="<int>", help="Runs at the same time.")] = 1,
) -> None:
    """Hold small models against base and controls.

    Trains a base for each seed, compresses it in several ways and to several sizes, trains everything on, and compares
    with the base trained on as long, with baselines and with small models from scratch.

    Leaves report.html, report.md and report.json, and a folder per line with every model. A study that was interrupted
    goes on when the same command is given again.

    \b
    Example:
      afm report frappe --model deepfm --set embedding_dim=10 \\
          --set embedding_l2=0.05 --bytes 18,25,32,45 --seeds 4 --out study
    """
    model_options, train_options = afm.options_class(model)(), afm.TrainOptions()
    apply_settings(settings or [], model_options, train_options)
    chosen = Settings(
        folder=str(folder),
        kind=model,
        model=json_text.loads(model_options.to_json()),
        training=changed(train_options),
        extra_epochs=extra_epochs,
        seeds=tuple(range(1, seeds + 1)),
        ratios=numbers("--ratios", ratios),
        times=numbers("--bytes", times),
        device=device,
        teachers=tuple(str(path) for path in teacher or ()),
    )
    check_only(chosen, only or [])
    output.mkdir(parents=True, exist_ok=True)
    check_same_study(chosen, output / "study.json")
    results = run_all(chosen, output, only or [], jobs)
    summary = summarize(chosen, variants(chosen), results, output)
    write_pages(summary, output)
    out.print((output / "report.md").read_text(), markup=False, soft_wrap=True)


def numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{option} must be numbers above 1 with commas between, got {text!r}") from None
    if any(not value > 1 for value in values):
        raise ValueError(f"{option} must be numbers above 1, got {text!r}")
    return values


def check_only(settings: Settings, only: list[str]) -> None:
    """Before bases are trained: a start that no line has would leave an empty report."""
    keys = [variant.key for variant in variants(settings)]
    for start in only:
        if not any(key.startswith(start) for key in keys):
            raise ValueError(f"--only: no line has a key that starts with {start!r}; the keys are: {', '.join(keys)}")


def changed(options: afm.TrainOptions) -> dict:
    """The training options that are not what they are by default."""
    now, default = (json_text.loads(each.to_json()) for each in (options, afm.TrainOptions()))
    return {name: value for name, value in now.items() if value != default[name]}


def check_same_study(settings: Settings, path: Path) -> None:
    """The cells of another study would be taken for this one's. Budgets and device may change."""
    text = as_json(settings)
    if path.exists():
        old, new = json_text.loads(path.read_text()), json_text.loads(text)
        for name in ("kind", "model", "training", "extra_epochs", "seeds", "teachers"):
            if old.get(name, []) != new[name]:
                raise ValueError(
                    f"{path.parent} holds a study with {name} {old[name]}, got {new[name]}; choose another --out"
                )
    write_text(path, text)


def run_all(settings: Settings, output: Path, only: list[str], jobs: int) -> dict[tuple[str, int], dict]:
    """(key, seed) -> result: bases first, since the others need them all."""
    Study(settings, output).train_bases()
    say(f"report: {len(settings.seeds)} bases trained")
    keys = [v.key for v in variants(settings) if not only or any(v.key.startswith(start) for start in only)]
    bases = [("", seed) for seed in settings.seeds]
    cells = [(key, seed) for key in keys for seed in settings.seeds]
    results = {}
    for tasks in (bases, cells):
        for key, seed, result in done(settings, output, tasks, jobs):
            if not key:
                say(f"report: base {seed} measured")
                continue
            results[key, seed] = result
            told = result.get("refused") or f"AUC {result['auc']:.4f}, {result['bytes']:,} bytes"
            say(f"report: {len(results)}/{len(cells)} {key} seed {seed}: {told}")
    return results


def done(settings: Settings, output: Path, tasks: list, jobs: int) -> Iterator[tuple[str, int, dict]]:
    if jobs == 1:
        yield from (run_one(settings, output, key, seed) for key, seed in tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(run_one, settings, output, key, seed) for key, seed in tasks]
        for future in as_completed(pending):
            yield future.result()


_studies: dict[Path, Study] = {}  # of this process: data sets and teachers stay loaded


def run_one(settings: Settings, output: Path, key: str, seed: int) -> tuple[str, int, dict]:
    study = _studies.setdefault(output, Study(settings, output))
    if not key:
        study.statistics(seed)
        return key, seed, {}
    variant = next(each for each in variants(settings) if each.key == key)
    return key, seed, study.cell(variant, seed)

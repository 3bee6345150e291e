"""`afm train`, `afm compress`, `afm evaluate` and `afm inspect`."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

import afm

from . import inspection
from .compressing import Budget, compress_model, layer_rows
from .console import out, print_json, print_table, say
from .fitting import as_dict, fit, fit_seeds, output_of, print_seeds, seeds_of, unchanged
from .recipe import finished
from .settings import add_settings_help, apply_settings

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Folder = Annotated[Path, typer.Argument(help="Dataset folder, as `afm prepare` writes it.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A model or training option by its name; may repeat."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run of the same command stopped.")]


def train(
    folder: Folder,
    output: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
    model: Annotated[str, typer.Option(help=f"One of: {', '.join(afm.model_names())}.")] = "deepfm",
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Fresh weights, order of rows, dropout.")] = 1,
    seeds: Annotated[
        str | None, typer.Option(help="Several models at once instead, such as 1,2,3: OUT with -1, -2, -3 in its name.")
    ] = None,
    device: Device = "cpu",
    teacher: Annotated[Path | None, typer.Option(help="Model file whose logits are a second target.")] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train a model on a dataset folder.

    The weights of the best validation AUC are kept. While it runs, progress is saved beside the output, to
    OUT.checkpoint: after Ctrl-C or a crash, the same command with --resume goes on from there.

    \b
    Example:
      afm train clicks --model deepfm --set embedding_dim=10 \\
          --set hidden=400,400,400 --set embedding_l2=0.05 --out base.safetensors
    """
    wanted = [] if seeds is None else seeds_of(seeds)
    outputs = {each: output_of(output, each) for each in wanted}
    for path in outputs.values() or [output]:
        check_output(path)
    model_options = afm.options_class(model)()
    train_options = afm.TrainOptions(seed=seed, device=device)
    apply_settings(settings or [], model_options, train_options)
    train_set, valid_set = afm.Dataset.open(folder, "train"), afm.Dataset.open(folder, "valid")
    taught_by = teacher and afm.load_model(teacher)

    def fresh(own: int) -> afm.Model:
        torch.manual_seed(own)
        return afm.make_model(model, train_set.schema, **as_dict(model_options))

    if outputs:
        models = {each: fresh(each) for each in outputs}
        histories = fit_seeds(models, train_set, valid_set, train_options, outputs, resume, taught_by)
        print_seeds(histories, outputs, json)
        return
    history = fit(fresh(train_options.seed), train_set, valid_set, train_options, output, resume, taught_by, "train")
    if json:
        print_json({"model": str(output), **as_dict(history)})
        return
    best = history.epochs[history.best_epoch - 1]
    out.print(
        f"{output}: best epoch {history.best_epoch}, valid AUC {best.valid_auc:.4f}, logloss {best.valid_logloss:.4f}",
        markup=False,
        soft_wrap=True,
    )


def compress(
    base: Annotated[Path, typer.Argument(help="Model file to compress.")],
    folder: Folder,
    output: Annotated[Path, typer.Option("--out", "-o", help="Model file to write.")],
    smaller: Annotated[
        float | None,
        typer.Option(
            help="Budget: the model file so many times smaller, such as 20. Uses all that libafm knows: loss-weighted "
            "ranks, wide weights in the tables, folding, tiers, integers, fewer hidden units."
        ),
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="Budget: parameters before / after, above 1, such as 8.")] = None,
    bytes: Annotated[
        int | None, typer.Option(min=1, metavar="<int>", help="Budget: bytes of the compressed model's tensors.")
    ] = None,
    energy: Annotated[
        float | None, typer.Option(help="Budget: share of each output's variance to keep, in (0, 1], such as 0.99.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Rank plan instead of a budget: an edited OUT.plan.json.")] = None,
    policy: Annotated[
        Literal["energy", "uniform"],
        typer.Option(help="Ranks by the variance they keep, or the same share of rank everywhere (the paper's)."),
    ] = "energy",
    basis: Annotated[
        Literal["field", "shared"],
        typer.Option(help="Of embeddings: one basis per field, or one for all, so that inner products survive."),
    ] = "field",
    activation: Annotated[
        Literal["none", "relu", "shifted_relu"],
        typer.Option(help="Between the factors of a layer; relu is the paper's, shifted_relu loses nothing."),
    ] = "none",
    method: Annotated[
        Literal["mimic", "svd"],
        typer.Option(help="Atomic Feature Mimicking, or a decomposition of the weights alone."),
    ] = "mimic",
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER", help="Layer to leave alone, by its path (mlp.layers.0, or mlp for all of it); may repeat."
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(min=0, metavar="<int>", help="Rows for the statistics; 0 = all training rows.")
    ] = 0,
    epochs: Annotated[
        int, typer.Option(min=0, metavar="<int>", help="Epochs of training on after compression; 0 = none.")
    ] = 8,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Whose logits to learn from while training on: base (if not given), none, or a model file; of several "
            "the mean. Bases of other seeds make the best teacher.",
        ),
    ] = None,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="Order of rows and dropout while training on.")] = 1,
    device: Device = "cpu",
    statistics: Annotated[
        Path | None, typer.Option(help="Statistics file: read where it exists, written otherwise.")
    ] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Make a trained model smaller.

    Collects statistics of its layers over the training rows, plans ranks within the budget, replaces layers by factors,
    and trains the result on. Give exactly one of --smaller, --ratio, --bytes, --energy and --plan. The plan is also
    written beside the output (small.safetensors: small.plan.json); edit it and pass it back with --plan.

    Training on uses the batch size and L2 that the base was trained with, a learning rate that falls linearly to 0, and
    the base as teacher; --set changes any training option that `afm train --help` lists. While it runs, progress is
    saved to OUT.checkpoint, for --resume. At the end, base and result are compared on the validation rows.

    \b
    Example:
      afm compress base.safetensors clicks --ratio 8 --out small.safetensors
      afm compress base1.safetensors clicks --smaller 20 --epochs 10 \\
          --teacher base1.safetensors --teacher base2.safetensors \\
          --out small.safetensors
    """
    check_output(output)
    if output.exists() and base.exists() and output.samefile(base):
        raise ValueError(f"--out must be another file than the model to compress, got '{output}'")
    budget = Budget(ratio, bytes, energy, plan, policy, basis, activation, tuple(skip or ()), smaller)
    budget.check()
    check_is_used(budget, method)
    model = afm.load_model(base).to(device)
    options = healing_options(model, epochs, seed, device)
    apply_settings(settings or [], options)
    guides = teachers_of(teacher or ["base"], model)
    train_set, valid_set = afm.Dataset.open(folder, "train"), afm.Dataset.open(folder, "valid")
    say(f"compress: statistics of {base.name}")
    small, used = compress_model(model, train_set, budget, method=method, rows=rows, statistics_file=statistics)
    afm.write_plan(output.with_suffix(".plan.json"), used.plan)
    if not json and smaller is None:
        print_table("layers", ["layer", "shape", "rank", "kept variance", "parameters", "after"], layer_rows(used))
    if not json and used.rise is not None:
        out.print(str(used.rise), markup=False, soft_wrap=True)
    finish = finished if smaller is not None else unchanged
    if epochs > 0:
        fit(small, train_set, valid_set, options, output, resume, guides, "train on", finish)
    small = finish(small)
    if epochs == 0:
        afm.save_model(small, output)
    comparison = afm.compare(model, small, valid_set)
    if json:
        rise = {} if used.rise is None else {"rise": used.rise.to_dict()}
        print_json({"model": str(output), "plan": used.plan.to_dict(), **rise, "valid": comparison.to_dict()})
        return
    print_comparison(comparison, base, output)


def teachers_of(names: list[str], model: afm.Model) -> list[afm.Model]:
    if "none" in names:
        if len(names) > 1:
            raise ValueError(f"--teacher none must stand alone, got {', '.join(names)}")
        return []
    return [model if name == "base" else afm.load_model(name) for name in names]


def check_is_used(budget: Budget, method: str) -> None:
    """Refuses what the budget leaves no choice of, rather than to ignore it."""
    (given,) = budget.given()
    chosen = {
        "policy": budget.policy != Budget.policy,
        "basis": budget.basis != Budget.basis,
        "activation": budget.activation != Budget.activation,
        "skip": bool(budget.skip),
        "method": method != "mimic" and given == "smaller",
    }
    if given in ("smaller", "plan") and (unused := [name for name, is_chosen in chosen.items() if is_chosen]):
        raise ValueError(f"--{unused[0]} goes with --ratio, --bytes or --energy, not with --{given}, which decides it")


def check_output(output: Path, option: str = "--out") -> None:
    """Before the long work: whether the file can be written at all."""
    if output.is_dir():
        raise ValueError(f"{option} must be a file, got the folder '{output}'")
    output.parent.mkdir(parents=True, exist_ok=True)


def healing_options(model: afm.Model, epochs: int, seed: int, device: str) -> afm.TrainOptions:
    """The base's own options, with a learning rate that falls linearly to 0 and no early stop."""
    trained = json_text.loads(model.notes.get("training", "{}"))
    kept = {name: trained[name] for name in ("batch_size", "embedding_l2", "mlp_l2") if name in trained}
    return afm.TrainOptions(epochs=max(epochs, 1), seed=seed, device=device, schedule="linear", patience=0, **kept)


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model file.")],
    folder: Folder,
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Which rows.")] = "test",
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Print AUC and logloss of a model on a split, and its size.

    And of every field the share of its values that are unknown: those that training did not count, rare and empty ones.
    Where it grows, it is time to prepare anew and to train again.
    """
    loaded = afm.load_model(model).to(device)
    metrics = afm.evaluate(loaded, afm.Dataset.open(folder, split))
    result = {
        "auc": metrics.auc,
        "logloss": metrics.logloss,
        "rows": metrics.rows,
        "parameters": afm.parameter_count(loaded),
        "bytes": model.stat().st_size,
    }
    if json:
        print_json({**result, "unknown": metrics.unknown})
        return
    shown = [
        f"{metrics.auc:.5f}",
        f"{metrics.logloss:.5f}",
        *(f"{result[key]:,}" for key in ("rows", "parameters", "bytes")),
    ]
    names = ["AUC", "logloss", "rows", "parameters", "file bytes"]
    print_table(f"{model.name} on {split}", ["model", *names], [[model.name, *shown]])
    shares = [[field, f"{share:.2%}"] for field, share in metrics.unknown.items()]
    print_table(split, ["field", "unknown values"], shares)


def inspect(
    file: Annotated[
        Path, typer.Argument(help="Any file or folder of libafm: model, dataset, statistics, checkpoint, plan.")
    ],
    json: Json = False,
) -> None:
    """Print what a file holds.

    A model: kind, options, ranks, parameters and bytes by group. A dataset: rows and schema. Everything else: its
    metadata and tensors.
    """
    found = inspection.inspect(file)
    if json:
        print_json(found)
        return
    inspection.show(found)


def print_comparison(comparison: afm.Comparison, before: Path, after: Path) -> None:
    rows = []
    for path, side in ((before, comparison.before), (after, comparison.after)):
        rows.append(
            [
                path.name,
                f"{side.metrics.auc:.4f}",
                f"{side.metrics.logloss:.4f}",
                f"{side.parameters:,}",
                f"{path.stat().st_size:,}",
                f"{side.microseconds_per_row:.2f}",
            ]
        )
    print_table("validation rows", ["model", "AUC", "logloss", "parameters", "file bytes", "µs/row"], rows, highlight=1)


add_settings_help(
    train,
    {
        f"Model options for --set ({', '.join(afm.model_names())}):": [afm.options_class(n) for n in afm.model_names()],
        "Training options for --set:": [afm.TrainOptions],
    },
)

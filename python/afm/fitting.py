"""Training as the command line does it: with a checkpoint beside the output, and the options kept in the model file."""

from __future__ import annotations

import json as json_text
from pathlib import Path

import torch

import afm

from .console import Interrupted, print_json, print_table, say_epoch, training_bar

OF_ONE_RUN = ("checkpoint", "checkpoint_seconds", "resume")  # they decide no weight, and would make two files differ


def unchanged(model: afm.Model) -> afm.Model:
    return model


def fit(
    model, train_set, valid_set, options, output: Path, resume: bool, teacher, what: str, finish=unchanged
) -> afm.History:
    """Trains with a checkpoint beside the output, saves what `finish` makes of the model, with its training options,
    removes the checkpoint.
    """
    options.checkpoint = options.checkpoint or f"{output}.checkpoint"
    options.resume = options.resume or resume
    try:
        with training_bar(what) as on_progress:
            history = afm.train(model, train_set, valid_set, options, teacher=teacher, on_progress=on_progress)
    except KeyboardInterrupt as stop:
        if Path(options.checkpoint).exists():
            raise Interrupted("the same command with --resume goes on from the last checkpoint") from stop
        raise
    keep(model, options, output, finish)
    return history


def keep(model: afm.Model, options: afm.TrainOptions, output: Path, finish=unchanged) -> None:
    """Saves what `finish` makes of a trained model, with its training options, and removes its checkpoint."""
    told = {name: value for name, value in as_dict(options).items() if name not in OF_ONE_RUN}
    model.notes = {**model.notes, "training": json_text.dumps(told)}
    afm.save_model(finish(model), output)
    Path(options.checkpoint).unlink(missing_ok=True)


def seeds_of(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers with commas between, got {text!r}") from None
    if len(set(found)) < len(found):
        raise ValueError(f"--seeds must differ from each other, got {text!r}")
    return found


def output_of(output: Path, seed: int) -> Path:
    return output.with_stem(f"{output.stem}-{seed}")


def fit_seeds(
    models: dict[int, afm.Model], train_set, valid_set, options, outputs: dict[int, Path], resume: bool, teacher
) -> dict[int, afm.History]:
    """fit() of the models of several seeds at once."""
    each = []
    for seed, output in outputs.items():
        own = afm.TrainOptions.from_json(options.to_json())
        own.seed, own.checkpoint, own.resume = seed, f"{output}.checkpoint", options.resume or resume
        each.append(own)

    def on_progress(place: int, state: afm.Progress) -> None:
        if state.finished is not None:
            say_epoch(f"seed {each[place].seed}", state.finished)

    try:
        histories = afm.fit_many(
            list(models.values()), train_set, valid_set, each, teacher=teacher, on_progress=on_progress
        )
    except KeyboardInterrupt as stop:
        if any(Path(own.checkpoint).exists() for own in each):
            raise Interrupted("the same command with --resume goes on from the last checkpoints") from stop
        raise
    for model, own, output in zip(models.values(), each, outputs.values(), strict=True):
        keep(model, own, output)
    return dict(zip(models, histories, strict=True))


def print_seeds(histories: dict[int, afm.History], outputs: dict[int, Path], json: bool) -> None:
    if json:
        print_json([{"model": str(outputs[seed]), "seed": seed, **as_dict(each)} for seed, each in histories.items()])
        return
    best = {seed: each.epochs[each.best_epoch - 1] for seed, each in histories.items()}
    rows = [
        [str(outputs[seed]), str(epoch.epoch), f"{epoch.valid_auc:.4f}", f"{epoch.valid_logloss:.4f}"]
        for seed, epoch in best.items()
    ]
    aucs = torch.tensor([epoch.valid_auc for epoch in best.values()], dtype=torch.float64)
    losses = torch.tensor([epoch.valid_logloss for epoch in best.values()], dtype=torch.float64)
    rows.append(["mean", "", f"{aucs.mean():.4f}", f"{losses.mean():.4f}"])
    if len(best) > 1:
        rows.append(["standard deviation", "", f"{aucs.std():.4f}", f"{losses.std():.4f}"])
    print_table("validation rows", ["model", "best epoch", "AUC", "logloss"], rows)


def as_dict(options) -> dict:
    return json_text.loads(options.to_json())

"""Fitting and judging a model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from afm import _core
from afm.models import Model, core_of


def train(
    model: Model,
    train_set: _core.Dataset,
    valid_set: _core.Dataset,
    options: _core.TrainOptions | None = None,
    *,
    teacher: Model | Sequence[Model] | None = None,
    on_progress: Callable[[_core.Progress], object] | None = None,
    **fields: Any,
) -> _core.History:
    """Fits a model in place: Adam on logloss, validation AUC after each epoch, early stop, best weights restored.

    Ctrl-C raises KeyboardInterrupt; a checkpoint file on disk stays whole, and resume=True goes on from it.

    Args:
        model: moved to the device of the options, and stays there.
        train_set: what it learns from.
        valid_set: what decides on the learning rate and when to stop.
        options: how; or the same as keywords.
        teacher: its logits, or the mean of several models' logits, are a second target (distillation); stays as it is.
        on_progress: called every few batches and after each epoch; may raise to stop.
        **fields: the fields of TrainOptions: epochs, batch_size, learning_rate, seed, device, checkpoint, ...

    Returns:
        The epochs and which of them was best.

    Example:
        history = afm.train(model, train_set, valid_set, epochs=20, embedding_l2=0.05, seed=1)
    """
    if options is not None and fields:
        raise TypeError(f"train takes either options or keywords, got both options and {', '.join(fields)}")
    wanted = _core.TrainOptions(**fields) if options is None else options
    teachers = [] if teacher is None else [teacher] if isinstance(teacher, torch.nn.Module) else list(teacher)
    cores = [core_of(each) for each in teachers]
    return _core.train(core_of(model), train_set, valid_set, wanted, cores, on_progress)


def evaluate(
    model: Model,
    dataset: _core.Dataset,
    *,
    batch_size: int = 10000,
    on_progress: Callable[[int], object] | None = None,
) -> _core.Metrics:
    """AUC and logloss over a dataset.

    Args:
        model: is put into evaluation mode meanwhile.
        dataset: its schema must fit the model's.
        batch_size: rows at a time.
        on_progress: called after each batch with the rows done; may raise to stop.
    """
    return _core.evaluate(core_of(model), dataset, batch_size, on_progress)


def predict(
    model: Model,
    dataset: _core.Dataset,
    *,
    batch_size: int = 10000,
    on_progress: Callable[[int], object] | None = None,
) -> torch.Tensor:
    """Logits of every row in order, [N], on the model's device; the sigmoid of one is a probability."""
    return _core.predict(core_of(model), dataset, batch_size, on_progress)

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
    return _core.train(core_of(model), train_set, valid_set, wanted, cores_of(teacher), on_progress)


def fit_many(
    models: Sequence[Model],
    train_set: _core.Dataset,
    valid_set: _core.Dataset,
    options: Sequence[_core.TrainOptions] | None = None,
    *,
    teacher: Model | Sequence[Model] | None = None,
    on_progress: Callable[[int, _core.Progress], object] | None = None,
    at_once: int = 0,
    **fields: Any,
) -> list[_core.History]:
    """Fits many models at once on one device, each as train() would: seeds or settings, for tuning and for spreads.

    On a GPU every model has a stream of its own (recorded steps make the most of it); on the CPU the models share
    the threads, each of as many as there are threads has one to itself. An error in one stops all, and names it.

    Args:
        models: moved to the device of the options, and stay there; without common parameters.
        train_set: what they learn from; copied to the device once.
        valid_set: what decides on the learning rates and when to stop.
        options: one for each model; or the same as keywords.
        teacher: as in train(), of all of them.
        on_progress: called with the place of a model and its progress, on the calling thread; may raise to stop.
        at_once: models under training at a time; 0: on a GPU 32, on the CPU one per thread.
        **fields: the fields of TrainOptions, a value for all or a list with one for each model.

    Returns:
        The history of each model.

    Example:
        histories = afm.fit_many(models, train_set, valid_set, epochs=20, seed=[1, 2, 3, 4])
    """
    if options is not None and fields:
        raise TypeError(f"fit_many takes either options or keywords, got both options and {', '.join(fields)}")
    wanted = options_of_each(len(models), fields) if options is None else list(options)
    cores = [core_of(model) for model in models]
    return _core.fit_many(cores, train_set, valid_set, wanted, cores_of(teacher), on_progress, at_once)


def options_of_each(count: int, fields: dict[str, Any]) -> list[_core.TrainOptions]:
    """Keywords with a value for all models or a list of values, as the options of each of them."""
    lists = {name: value for name, value in fields.items() if isinstance(value, list | tuple)}
    for name, values in lists.items():
        if len(values) != count:
            raise ValueError(f"fit_many: {name} must have a value for each of the {count} models, got {len(values)}")
    common = {name: value for name, value in fields.items() if name not in lists}
    return [
        _core.TrainOptions(**common, **{name: values[place] for name, values in lists.items()})
        for place in range(count)
    ]


def cores_of(teacher: Model | Sequence[Model] | None) -> list[Any]:
    teachers = [] if teacher is None else [teacher] if isinstance(teacher, torch.nn.Module) else list(teacher)
    return [core_of(each) for each in teachers]


def evaluate(
    model: Model,
    dataset: _core.Dataset,
    *,
    batch_size: int = 10000,
    on_progress: Callable[[int], object] | None = None,
) -> _core.Metrics:
    """AUC and logloss over a dataset, and by field the share of values that are unknown (`unknown`, a dict).

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

"""Whether statistics are those of a model: a file of statistics outlives the model that it was collected from."""

from __future__ import annotations

import torch

import afm

TOLERANCE = 1e-3  # of the outputs' size: rounding of float32 is 1e-7 of it, another model's outputs are of that size


def check_are_of(model: afm.Model, statistics: afm.Statistics, source: object) -> None:
    """Refuses statistics of other weights: the mean output of a linear layer is that of its mean input.

    Layers of other shapes are left to factorize(), which names them.
    """
    weights = model.state_dict()
    for name, layer in statistics.layers.items():
        weight = weights.get(f"{name}.weight")
        if layer.is_embedding or layer.input_mean is None or weight is None or not fits(weight, layer):
            continue
        bias = weights.get(f"{name}.bias", torch.zeros(())).cpu().double()
        moments = layer.output[0]
        expected = weight.cpu().double() @ layer.input_mean + bias
        size = moments.mean.square().sum() + moments.covariance().trace()
        if (expected - moments.mean).norm() > TOLERANCE * size.sqrt():
            raise afm.DataError(
                f"{source} holds statistics of another model: {name} has other weights; give another file"
            )


def fits(weight: torch.Tensor, layer: afm.LayerStatistics) -> bool:
    return list(weight.shape) == [layer.out_features, layer.in_features]

"""What compression alone does to the logloss, before any training on: predicted, and measured on calibration rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import afm

ROWS = 20_000  # of calibration
LEFT = 0.25  # of what rounding loses, after training on with the rounding in it; lost ranks stay lost


@dataclass(frozen=True)
class Prediction:
    """Rise of the logloss on calibration rows by compression alone, in nats per row, to second order.

    With the labels t of the rows it is KL and the mean of (p - t)(s' - s): the second is 0 where the base is at a
    minimum of the logloss, and is not predicted.

    Args:
        ranks: predicted for ranks and fewer hidden units, from the statistics, layer by layer.
        rounding: predicted for integers, from the errors that they make on the rows, in all layers together.
        measured: KL(base || small).
    """

    ranks: float
    rounding: float
    measured: float

    @property
    def total(self) -> float:
        return self.ranks + self.rounding

    @property
    def after_training(self) -> float:
        """What a choice between ranks and bits goes by: rounding heals, lost ranks do not (benchmarks/RESULTS.md)."""
        return self.ranks + LEFT * self.rounding

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "predicted": self.total}

    def __str__(self) -> str:
        return (
            f"logloss by compression alone: ranks {self.ranks:+.4f}, rounding {self.rounding:+.4f}, "
            f"predicted {self.total:+.4f}; KL on calibration rows {self.measured:+.4f}"
        )


def predict_rise(
    base: afm.Model, small: afm.Model, statistics: afm.Statistics, plan: afm.RankPlan, train_set: afm.Dataset
) -> Prediction:
    """Of the model that `plan` has made of `base`, not trained on yet; the statistics must have a metric."""
    units = any(layer.units for layer in plan.values())
    return Prediction(
        ranks=afm.predicted_logloss(statistics, plan, model=base if units else None),
        rounding=afm.predicted_change(afm.with_bits(small, {}), small, train_set, max_rows=ROWS).together,
        measured=afm.mean_kl(base, small, train_set, max_rows=ROWS),
    )

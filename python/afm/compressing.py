"""The compression of one of our models: statistics, plan, factors, and what they did to each layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import afm

from .prediction import Prediction, predict_rise
from .recipe import Recipe, file_bytes, shrink_to_file
from .statistics_check import check_are_of


@dataclass(frozen=True)
class Budget:
    """How small: one of smaller, ratio, bytes, energy or a plan file; and how ranks are chosen.

    Args:
        smaller: the model file, so many times: everything that a Recipe knows is used.
    """

    ratio: float | None = None
    bytes: int | None = None
    energy: float | None = None
    plan: Path | None = None
    policy: str = "energy"
    basis: str = "field"
    activation: str = "none"
    skip: tuple[str, ...] = ()
    smaller: float | None = None

    def check(self) -> None:
        """Refuses what needs no statistics to be refused: those take a while."""
        given = self.given()
        if len(given) != 1:
            raise ValueError(
                "exactly one of --smaller, --ratio, --bytes, --energy and --plan must be given, got "
                + (", ".join(given) or "none")
            )
        for name in ("smaller", "ratio"):
            value = getattr(self, name)
            if value is not None and not value > 1:
                raise ValueError(f"--{name} must be above 1, got {value:g}")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise ValueError(f"--energy must be in (0, 1], got {self.energy:g}")
        if self.plan is not None:
            afm.read_plan(self.plan)

    def given(self) -> list[str]:
        return [name for name in ("smaller", "ratio", "bytes", "energy", "plan") if getattr(self, name) is not None]

    def ranks(self, statistics: afm.Statistics) -> afm.RankPlan:
        self.check()
        if self.plan is not None:
            return afm.read_plan(str(self.plan))
        return afm.plan_ranks(
            statistics,
            **{name: getattr(self, name) for name in self.given()},
            policy=self.policy,
            basis=self.basis,
            activation=self.activation,
            skip=list(self.skip),
        )


@dataclass(frozen=True)
class Used:
    """What a compression was computed from."""

    model: afm.Model
    statistics: afm.Statistics
    plan: afm.RankPlan
    field_names: list[str]
    rise: Prediction | None  # of the logloss; with a metric, which "mimic" then uses


def compress_model(
    model: afm.Model,
    train_set: afm.Dataset,
    budget: Budget,
    *,
    method: str = "mimic",
    rows: int = 0,
    statistics_file: Path | None = None,
) -> tuple[afm.Model, Used]:
    """Statistics over the training rows, ranks, factors. Returns the smaller model; `model` stays as it is."""
    everything = budget.smaller is not None
    if everything and file_bytes(model) < budget.smaller:
        raise ValueError(
            f"--smaller must be below the {file_bytes(model):,} bytes of the model file, got {budget.smaller:g}"
        )
    if statistics_file is not None and statistics_file.exists():
        statistics = afm.Statistics.load(str(statistics_file))
        check_are_of(model, statistics, statistics_file)
        if everything and not statistics.has_metric:
            raise afm.DataError(
                f"{statistics_file} holds statistics without the metric of the loss, which --smaller plans by; "
                "give it another file to write"
            )
    else:
        statistics = afm.collect_statistics(
            model, train_set, max_rows=rows, whole_training_set=rows == 0, metric=everything, input_moments=everything
        )
        if statistics_file is not None:
            statistics.save(str(statistics_file))
    if everything:
        target = int(file_bytes(model) / budget.smaller)
        recipe = Recipe.for_bytes(budget.smaller, model)
        small, plan = shrink_to_file(model, statistics, recipe, target, train_set)
    else:
        plan = budget.ranks(statistics)
        small = afm.factorize(model, statistics, plan, method=method)
    names = [field.name for field in model.schema.fields if field.kind != "numeric"]
    predictable = statistics.has_metric and method == "mimic"
    rise = predict_rise(model, small, statistics, plan, train_set) if predictable else None
    return small, Used(model, statistics, plan, names, rise)


def summaries(used: Used) -> list[dict]:
    """One dict per layer and field: LayerSummary with a readable name and the eigenvalues of its output."""
    lines = []
    for line in afm.summarize(used.statistics, used.plan, model=used.model):
        name = line.layer if line.field < 0 else f"{line.layer}: {used.field_names[line.field]}"
        values = afm.spectrum_values(used.statistics, line.layer, line.field)
        lines.append({**line.to_dict(), "name": name, "eigenvalues": list(values)})
    return lines


def layer_rows(used: Used) -> list[list[str]]:
    """Rows of a table for people."""
    return [
        [
            line["name"],
            f"{line['rows']:,} x {line['columns']:,}",
            "dense" if line["dense"] else str(line["rank"]),
            f"{100 * line['kept_energy']:.2f} %",
            f"{line['parameters_before']:,}",
            f"{line['parameters_after']:,}",
        ]
        for line in summaries(used)
    ]

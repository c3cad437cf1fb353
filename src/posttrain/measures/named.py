"""The measures by which policies are compared, defined once: metrics, tables and plots follow from `MEASURES`.

A measure is the mean over questions of one column of a policy's predictions. Selectors and generators have the same
columns:

    correct, reward                        of the greedy answer: the best-scored candidate, or greedy decoding
    probability_correct, expected_reward   of a sample at temperature 1: expected values over the candidates of a pool, or
                                           means over the samples of a generator
    the same with _fitted                  of a sample at the temperature fitted on validation (`measures.temperature`)
    kind                                   of the chosen candidate, or the first failure of the answer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posttrain.core.errors import UserError
from posttrain.measures.intervals import jeffreys, percentiles, resample_means

Row = Mapping[str, Any]
Columns = dict[str, NDArray[Any]]  # name -> (N,), one value per question; bool where it is a rate

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Measure:
    """The mean over questions of `column`.

    kind: a rate is a mean of verdicts and has Jeffreys intervals; any other mean has bootstrap intervals.
    change: heading of its column of changes in the table for readers; empty for a measure that only the csv shows.
    metric: whether DVC's tables of metrics show it.
    """

    name: str
    kind: Literal["rate", "mean"]
    column: str
    change: str = ""
    metric: bool = False


MEASURES = (
    Measure("accuracy", "rate", "correct", change="the greedy answer", metric=True),
    Measure(
        "fitted_accuracy",
        "mean",
        "probability_correct_fitted",
        change="a sample at the fitted temperature",
    ),
    Measure("sample_accuracy", "mean", "probability_correct", change="a sample at temperature 1"),
    Measure("reward", "mean", "reward"),
    Measure("fitted_reward", "mean", "expected_reward_fitted"),
    Measure("expected_reward", "mean", "expected_reward"),
)


def measured(predictions: Sequence[Row], measures: Sequence[Measure] = MEASURES) -> Columns:
    """The column of each measure, by the measure's name; `UserError` names a missing column."""
    columns: Columns = {}
    for measure in measures:
        try:
            values = [row[measure.column] for row in predictions]
        except KeyError as error:
            raise UserError(f"predictions without {error}, which {measure.name} needs") from error
        columns[measure.name] = np.array(values, dtype=bool if measure.kind == "rate" else float)
    return columns


def means(columns: Columns) -> dict[str, float]:
    """The mean of each column over the questions."""
    return {name: round(float(values.mean()), DIGITS) for name, values in columns.items()}


def intervals(
    columns: Columns, levels: Sequence[float], resamples: int
) -> dict[str, dict[str, list[float]]]:
    """[low, high] of each mean at each level: Jeffreys for bool columns, bootstrap for the others.

    All columns share the resampled questions, so a column of differences is paired.
    """
    stacked = np.stack([values.astype(np.float64) for values in columns.values()], axis=1)
    resampled = resample_means(stacked, resamples)
    result: dict[str, dict[str, list[float]]] = {}
    for column, (name, values) in enumerate(columns.items()):
        result[name] = {}
        for level in levels:
            if values.dtype == np.bool_:
                low, high = jeffreys(int(values.sum()), len(values), level)
            else:
                low, high = percentiles(resampled[:, column], level)
            result[name][f"{level:g}"] = [round(low, DIGITS), round(high, DIGITS)]
    return result

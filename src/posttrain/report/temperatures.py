"""Accuracy and reward of each policy over temperature, as a plot and as a table, from temperatures.json.

A policy's curve has the greedy answer at temperature 0. The fitted temperature differs between seeds, so its point is at
their geometric mean, and the curve is the mean over seeds at the temperatures that all of them have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from posttrain.core.errors import UserError
from posttrain.core.figures import INK, LINE, PAPER, figure_file
from posttrain.core.files import read_json
from posttrain.report.compare import Comparison
from posttrain.report.findings import joined, label
from posttrain.report.plots import colours, end_labels, titles
from posttrain.report.tables import table

VALUES = {"accuracy": "Right answers, %", "reward": "Reward, %"}
TICKS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DASHES = {"base": ":", "sft_plus": "--"}  # grey like sft
GREEDY = 0.6  # place of the greedy answer, as a share of the least other temperature


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Of one policy by seed: the fitted temperature, whether it is at a bound, and (accuracy, reward) by temperature."""

    fitted: Sequence[float]
    at_bound: Sequence[bool]
    curves: Sequence[Mapping[float, tuple[float, float]]]

    def mean(self, temperature: float | None) -> tuple[float, float]:
        """Accuracy and reward over seeds, at one temperature or (None) at the fitted ones."""
        places = [temperature] * len(self.curves) if temperature is not None else self.fitted
        accuracy, reward = np.mean(
            [curve[place] for curve, place in zip(self.curves, places, strict=True)], axis=0
        )
        return float(accuracy), float(reward)


def read_temperatures(directory: Path, comparison: Comparison) -> dict[str, Temperatures]:
    """What each compared policy has in `directory`/POLICY/SEED/temperatures.json; `UserError` if that is not a curve."""
    found = {}
    for policy in comparison.results:
        fitted, at_bound, curves = [], [], []
        for seed in comparison.seeds:
            path = directory / policy / str(seed) / "temperatures.json"
            if not path.is_file():
                raise UserError(f"{path}: missing; run dvc repro {directory.name}")
            content = read_json(path)
            try:
                curve = {
                    float(one["temperature"]): (float(one["accuracy"]), float(one["reward"]))
                    for one in content["curve"]
                }
                needed = [0.0, 1.0, float(content["fitted"])]
                at_bound.append(bool(content["at_bound"]))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{path}: not a curve over temperatures: {error}") from error
            for temperature in needed:
                if temperature not in curve:
                    raise UserError(f"{path}: its curve has no temperature {temperature:g}")
            fitted.append(needed[-1])
            curves.append(curve)
        found[policy] = Temperatures(fitted, at_bound, curves)
    return found


def temperature_table(found: Mapping[str, Temperatures]) -> str:
    """Markdown: each policy's fitted temperature, and its accuracy and reward in percent in a greedy answer, a sample at the
    fitted temperature and one at temperature 1, means over seeds."""
    ways = ("greedy", "fitted", "at 1")
    heads = ["policy", "fitted temperature"]
    heads += [f"{name} %, {way}" for name in VALUES for way in ways]
    rows = []
    for policy, one in found.items():
        shown = f"{np.mean(one.fitted):.2f}"
        if len(one.fitted) > 1:
            shown += f" [{min(one.fitted):.2f}, {max(one.fitted):.2f}]"
        at = [one.mean(temperature) for temperature in (0.0, None, 1.0)]
        rows.append(
            [label(policy), shown, *(f"{100 * way[v]:.1f}" for v in range(2) for way in at)]
        )
    several = any(len(one.fitted) > 1 for one in found.values())
    told = "Brackets: the least and the greatest over seeds. " if several else ""
    bounds = [label(policy) for policy, one in found.items() if any(one.at_bound)]
    if bounds:
        told += f"The fit of {joined(bounds)} ends at a bound with some seed: no temperature within the bounds is the best. "
    return (
        f"{table(heads, rows)}\n\nThe fitted temperature gives validation's best answers the most likelihood (Guo et al. "
        f"2017); above 1 a policy is surer than it is right. {told}"
    ).strip()


def plot_temperatures(family: str, found: Mapping[str, Temperatures], path: Path) -> None:
    """Plot two panels, accuracy and reward over temperature, with a line per policy from the greedy answer on."""
    shared = {policy: common(one.curves) for policy, one in found.items()}
    drawn = sorted({temperature for each in shared.values() for temperature in each} - {0.0})
    places = [*drawn, *(each for one in found.values() for each in one.fitted)]
    least, most = min(places), max(places)
    start = GREEDY * least
    with figure_file(path, (10, 4.6)) as figure:
        color = colours(found)
        for axes, (value, title) in zip(
            figure.subplots(1, 2), enumerate(VALUES.values()), strict=True
        ):
            ends: dict[str, tuple[float, str]] = {}
            for policy, one in found.items():
                fitted = float(np.exp(np.mean(np.log(one.fitted))))
                curve = {t or start: one.mean(t)[value] for t in shared[policy]}
                curve[fitted] = one.mean(None)[value]
                x = sorted(curve)
                axes.plot(
                    x,
                    [100 * curve[t] for t in x],
                    color=color[policy],
                    linewidth=1.6,
                    linestyle=DASHES.get(policy, "-"),
                )
                for place, face in ((1.0, PAPER), (fitted, color[policy])):
                    axes.plot(
                        place, 100 * curve[place], "o", color=color[policy], markersize=5.5,
                        markerfacecolor=face, zorder=3,
                    )  # fmt: skip
                ends[label(policy)] = 100 * curve[x[-1]], color[policy]
            axes.set_xscale("log")
            ticks = [tick for tick in TICKS if least <= tick <= most]
            axes.set_xticks([start, *ticks], ["greedy", *(f"{tick:g}" for tick in ticks)])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("temperature")
            axes.set_title(title)
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axes.grid(axis="y", color=LINE, linewidth=0.6)
            axes.margins(x=0.02)
            end_labels(axes, ends)
        mark: dict[str, Any] = {"color": INK, "marker": "o", "markersize": 5.5, "linewidth": 0}
        handles = [
            Line2D([], [], label="temperature fitted on validation", **mark),
            Line2D([], [], label="temperature 1", markerfacecolor=PAPER, **mark),
        ]
        figure.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=2, frameon=False, fontsize=9,
        )  # fmt: skip
        count = max(len(one.curves) for one in found.values())
        told = "one seed" if count == 1 else f"means of {count} seeds"
        titles(
            figure,
            f"{family.capitalize()}: right answers and rewards over the temperature of samples",
            f"Test questions, {told}. A policy whose logits are another's times a constant has the other's curve, shifted.",
        )


def common(curves: Sequence[Mapping[float, object]]) -> list[float]:
    """The temperatures that all curves have, in order."""
    return sorted(set.intersection(*(set(curve) for curve in curves)))

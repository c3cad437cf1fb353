"""Learning curves of all methods and seeds of a family in one plot.

plots/curves/FAMILY/POLICY/SEED/{train,val}/KEY.tsv has a line per step: step, value. A panel leaves out the methods
that have no such curve.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from posttrain.core.errors import UserError
from posttrain.core.figures import GREY, LINE, figure_file
from posttrain.core.files import read_text
from posttrain.measures.intervals import Array
from posttrain.report.findings import joined, label, points
from posttrain.report.plots import colours, end_labels, titles

Curve = tuple[Array, Array]  # steps (T,) and values (T,)


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve, of each method and seed; `scale` multiplies the values."""

    key: str
    title: str
    curves: Mapping[str, Sequence[Curve]]
    scale: float = 1.0


VALIDATION = "val/reward"
MISSING = {VALIDATION: "recorded no validation", "train/kl": "recorded no KL"}
PANELS = (
    (VALIDATION, "Reward of the greedy answer on validation, %", 100.0),
    ("train/kl", "KL to SFT on training questions, nats per answer", 1.0),
)


def read_panels(directory: Path, methods: Sequence[str], seeds: Sequence[int]) -> list[Panel]:
    """The panels for which at least one method has curves for all seeds, `directory`/METHOD/SEED/KEY.tsv."""
    panels = []
    for key, title, scale in PANELS:
        curves: dict[str, list[Curve]] = {}
        for method in methods:
            paths = [directory / method / str(seed) / f"{key}.tsv" for seed in seeds]
            if all(path.is_file() for path in paths):
                curves[method] = [read_curve(path) for path in paths]
        if curves:
            panels.append(Panel(key, title, curves, scale))
    return panels


def read_curve(path: Path) -> Curve:
    """Steps and values of a file; `UserError` if it is no curve."""
    try:
        rows = list(csv.reader(read_text(path).splitlines(), delimiter="\t"))[1:]
        table = np.array([[float(cell) for cell in row] for row in rows])
        return table[:, 0], table[:, 1]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: not a curve of step and value: {error}") from error


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over seeds at the steps that all of them have."""
    steps = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves)))
    values = [
        [dict(zip(x.tolist(), y.tolist(), strict=True))[step] for step in steps] for x, y in curves
    ]
    return np.array(steps), np.mean(values, axis=0)


def smooth(values: Array) -> Array:
    """A centred running mean over a twelfth of the curve, shorter at its ends; a short curve stays as it is."""
    half = len(values) // 24
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def finding(panels: Sequence[Panel]) -> str:
    """The least and the greatest change of a method's validation reward from start to end of training, as a clause."""
    curves = next((panel.curves for panel in panels if panel.key == VALIDATION), {})
    ends = {method: mean_curve(seeds)[1] for method, seeds in curves.items()}
    gains = {method: float(values[-1] - values[0]) for method, values in ends.items()}
    if not panels:
        return "no learning curves"
    if not gains:
        return "no validation was recorded"
    least, most = (pick(gains, key=lambda method: gains[method]) for pick in (min, max))
    if len(gains) == 1:
        return f"{label(most)} moves the reward on validation by {points(gains[most])} points"
    return (
        f"training moves the reward on validation by {points(gains[least])} ({label(least)}) "
        f"to {points(gains[most])} points ({label(most)})"
    )


def plot_curves(family: str, panels: Sequence[Panel], seeds: int, path: Path) -> None:
    """Plot the panels: thin lines for single seeds, not smoothed, and a thick one for their smoothed mean.

    The subtitle names the methods that a panel lacks and another has.
    """
    with figure_file(path, (10, 4.3 if panels else 0.7)) as figure:
        axes = figure.subplots(1, len(panels), squeeze=False)[0] if panels else []
        for ax, panel in zip(axes, panels, strict=False):
            color, ends, start = colours(panel.curves), {}, []
            for method, curves in panel.curves.items():
                style = {"color": color[method]}
                steps, values = mean_curve(curves)
                thick = smooth(values)
                if len(curves) > 1 or not np.array_equal(thick, values):
                    for x, y in curves:
                        ax.plot(x, panel.scale * y, linewidth=0.8, alpha=0.35, **style)
                marker = "o" if len(steps) < 15 else None
                ax.plot(
                    steps, panel.scale * thick, linewidth=2, marker=marker, markersize=4, **style
                )
                ends[label(method)] = panel.scale * float(thick[-1]), color[method]
                start.append(panel.scale * values[0])
            if panel.key == VALIDATION:
                ax.axhline(
                    float(np.mean(start)), color=GREY, linewidth=1, linestyle=(0, (3, 3)), zorder=1
                )
            ax.set_title(panel.title)
            ax.set_xlabel("training step")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            ax.grid(axis="y", color=LINE, linewidth=0.6)
            ax.margins(x=0.02)
            end_labels(ax, ends)
        told = "one seed" if seeds == 1 else f"means of {seeds} seeds"
        told = f"Learning curves, {told}; thin: single seeds and steps; dashed: the SFT policy they start from."
        if not panels:
            told = "No method is compared that has recorded any."
        drawn = dict.fromkeys(method for panel in panels for method in panel.curves)
        for panel in panels:
            if missing := [label(method) for method in drawn if method not in panel.curves]:
                told += f" {joined(missing)} {MISSING[panel.key]}."
        titles(figure, f"{family.capitalize()}: {finding(panels)}", told)

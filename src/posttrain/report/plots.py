"""Plots of a comparison: shares in percent, their changes in percentage points."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from posttrain.core.figures import BLUE, GREY, INK, LINE, PAPER, figure_file
from posttrain.report.compare import CONTROLS, REFERENCE, Comparison, Estimate
from posttrain.report.findings import MINUS, headline, label

METHODS = (BLUE, "#d2691e", "#2a8c6a", "#a3427f", "#7d6b00", "#5b6ee1", "#b03030", "#4a8fa8")
SHIFT = 0.24  # distance of a row's outer estimates from its middle
WIDTHS = (6.0, 10.0, 13.5)  # inches, by the number of panels with changes
SIZE = {"o": 6.5, "D": 4.6, "s": 5.2, "^": 6.0}
MARKS = tuple(SIZE)  # of the measures in their order; the first is filled
STYLES: tuple[Any, ...] = ("-", (0, (5, 3)), (0, (1, 2)))  # of SFT's lines in the measures
FAR = 0.6  # base may widen the axis by this share of the others' span


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Plot panels with a row per policy: shares of right answers, and their changes against SFT and SFT+.

    Each measure has its mark; that of the greedy answer is filled. The axes fit the trained policies, and those of changes
    are equal; a point outside becomes an arrow at the edge, with its value.
    """
    order = _order(comparison)
    names = [measure.name for measure in comparison.shown]
    references = comparison.references[::-1]
    shifts = np.linspace(SHIFT, -SHIFT, len(names)) if len(names) > 1 else [0.0]
    panels: list[Mapping[str, Mapping[str, Estimate]]] = [
        {policy: result.values for policy, result in comparison.results.items()},
        *(comparison.against(reference) for reference in references),
    ]
    every = {
        policy: [panel[policy][name] for panel in panels[1:] if policy in panel for name in names]
        for policy in order
    }
    with figure_file(path, (WIDTHS[len(panels) - 1], 2.1 + 0.62 * len(order))) as figure:
        left, *rights = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        _zoom(left, {policy: [of[name] for name in names] for policy, of in panels[0].items()})
        for axes, estimates in zip((left, *rights), panels, strict=True):
            if axes is not left:
                _zoom(axes, every)
            for row, policy in enumerate(order):
                for name, shift, mark in zip(names, shifts, MARKS, strict=False):
                    if (estimate := estimates.get(policy, {}).get(name)) is not None:
                        color = INK if axes is left else BLUE if estimate.clear else GREY
                        _draw(axes, estimate, row + float(shift), color, mark)
            _rows(axes, [label(policy) for policy in order])
        for name, style in zip(names, STYLES, strict=False):
            place = 100 * comparison.results[REFERENCE].values[name].value
            left.axvline(place, color=INK, linewidth=0.8, linestyle=style, zorder=1)
        left.set_title("Right answers, % of the test questions")
        for axes, reference in zip(rights, references, strict=True):
            axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
            axes.set_title(f"Change against {label(reference)}, percentage points")
            axes.tick_params(labelleft=False)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
        _legend(figure, [measure.change for measure in comparison.shown], len(comparison.seeds) > 1)
        titles(
            figure, f"{comparison.family.capitalize()}: {headline(comparison)}", _told(comparison)
        )


def _told(comparison: Comparison) -> str:
    """What the intervals, colours and lines of the plot of a comparison are."""
    told = f"{comparison.questions} test questions, {_seeds(len(comparison.seeds))}. "
    if comparison.of_methods:
        told += "Intervals: shares over questions, changes over other trainings too; blue: beyond that noise"
    else:
        agreed = ", and all seeds agree" if len(comparison.seeds) > 1 else ""
        told += f"Intervals are over questions, for these models; blue: beyond their noise{agreed}"
    panel = "its panel" if len(comparison.references) > 1 else "the panel"
    lines = f"Lines: {label(REFERENCE)} in each measure, solid for the greedy answer."
    return f"{told}, adjusted for all changes of {panel}. {lines}"


def plot_cost(
    family: str, points: Mapping[str, tuple[float, Estimate]], title: str, path: Path
) -> None:
    """Plot accuracy against seconds of training; points: (seconds, accuracy) by policy. `base` goes into the subtitle."""
    trained = {policy: point for policy, point in points.items() if policy != "base"} or points
    with figure_file(path, (7.5, 4.6)) as figure:
        axes = figure.subplots()
        for policy, (seconds, accuracy) in trained.items():
            color = GREY if policy in CONTROLS else BLUE
            for interval, width in ((accuracy.interval, 1.0), (accuracy.inner_interval, 2.6)):
                if interval is not None:
                    axes.plot([seconds] * 2, 100 * np.array(interval), color=color, linewidth=width)
            axes.plot(seconds, 100 * accuracy.value, "o", color=color, markersize=6)
        axes.set_xlim(0, 1.15 * max(1.0, *(seconds for seconds, _ in trained.values())))
        axes.set_xlabel("seconds of training per seed, SFT included")
        axes.set_title("Accuracy on the test questions, %")
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.grid(axis="y", color=LINE, linewidth=0.6)
        tops = {name: (x, 100 * max(y.interval or (y.value,))) for name, (x, y) in trained.items()}
        _point_labels(axes, tops)
        told = "Bars: 80 % and 95 % Jeffreys intervals over questions."
        if "base" in points and points is not trained:
            told += f" Without any training base has {100 * points['base'][1].value:.1f} %."
        titles(figure, f"{family.capitalize()}: {title}", told)


def _point_labels(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write names above points (x, y), moved up where they would overlap."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    wide, tall = 0.085 * (right - left), 0.06 * (high - low)
    placed: list[tuple[float, float]] = []
    for name, (x, y) in sorted(points.items(), key=lambda item: item[1][1]):
        while any(abs(x - a) < wide and abs(y - b) < tall for a, b in placed):
            y += tall / 4
        placed.append((x, y))
        axes.annotate(label(name), (x, y), (0, 4), textcoords="offset points", ha="center")
    axes.set_ylim(low, max(high, *(y + tall for _, y in placed)))


def end_labels(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Write names at the right edge, each near the end of its line and apart from the others; ends: name to (y, color)."""
    low, high = axes.get_ylim()
    gap = 0.075
    places: list[float] = []
    ordered = sorted(ends.items(), key=lambda item: item[1][0])
    for _, (y, _) in ordered:
        height = (y - low) / (high - low)
        places.append(max(height, places[-1] + gap) if places else height)
    over = max(0.0, places[-1] - 1.0)
    for (name, (_, color)), place in zip(ordered, places, strict=True):
        axes.text(
            1.02, place - over, name, color=color, va="center", fontsize=9.5, fontweight="bold",
            transform=axes.transAxes,
        )  # fmt: skip


def colours(policies: Iterable[str]) -> dict[str, str]:
    """A colour for each method, in the order given; controls are grey."""
    methods = [policy for policy in policies if policy not in CONTROLS]
    coloured = {policy: METHODS[i % len(METHODS)] for i, policy in enumerate(methods)}
    return {**dict.fromkeys(CONTROLS, GREY), **coloured}


def _order(comparison: Comparison) -> list[str]:
    """The policies from the bottom row up: the controls, then the methods by their first measure."""
    first = comparison.shown[0].name
    methods = sorted(
        comparison.methods, key=lambda name: comparison.results[name].values[first].value
    )
    return [name for name in CONTROLS if name in comparison.results] + methods


def _zoom(axes: Axes, estimates: Mapping[str, Sequence[Estimate]]) -> None:
    """Set limits that fit the trained policies, and those estimates of base that are not far off."""

    def ends(some: Iterable[Estimate]) -> list[float]:
        return [
            100 * value
            for one in some
            for value in (one.value, *(one.interval or ()), *(seed.value for seed in one.seeds))
        ]

    trained = [one for policy, given in estimates.items() if policy != "base" for one in given]
    inner = ends(trained) or ends(one for given in estimates.values() for one in given) or [0.0]
    reach = FAR * max(max(inner) - min(inner), 1.0)
    for one in estimates.get("base", ()):
        if min(inner) - reach <= 100 * one.value <= max(inner) + reach:
            inner = inner + ends([one])
    margin = 0.07 * (max(inner) - min(inner) or 1.0)
    axes.set_xlim(min(inner) - margin, max(inner) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _draw(axes: Axes, estimate: Estimate, row: float, color: str, mark: str) -> None:
    """Draw intervals, mean and single seeds of an estimate, or an arrow if it is outside the axis."""
    face = color if mark == MARKS[0] else PAPER
    low, high = axes.get_xlim()
    value = 100 * estimate.value
    if not low <= value <= high:
        below = value < low
        place = low + (0.03 if below else 0.97) * (high - low)
        marker = "<" if below else ">"
        axes.plot(place, row, marker, color=color, markersize=6, markerfacecolor=face)
        axes.annotate(
            _signed(value) if estimate.p is not None else f"{value:.1f}",
            (place, row),
            (8 if below else -8, 0),
            textcoords="offset points",
            ha="left" if below else "right",
            va="center",
            fontsize=8.5,
            color=color,
        )
        return
    for interval, width in ((estimate.interval, 1.1), (estimate.inner_interval, 3.0)):
        if interval is not None:
            axes.plot(
                100 * np.array(interval),
                [row, row],
                color=color,
                linewidth=width,
                solid_capstyle="butt",
                zorder=2,
            )
    axes.plot(
        value, row, mark, color=color, markersize=SIZE[mark], markeredgewidth=1.4, zorder=3,
        markerfacecolor=face,
    )  # fmt: skip
    if len(estimate.seeds) > 1:
        seeds = [100 * seed.value for seed in estimate.seeds]
        axes.plot(seeds, [row + 0.1] * len(seeds), ".", color=color, alpha=0.55, markersize=4)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.55, len(labels) - 0.45)
    for row in range(0, len(labels), 2):
        axes.axhspan(row - 0.5, row + 0.5, color="#f5f6f8", linewidth=0, zorder=0)
    axes.set_axisbelow(True)


def _legend(figure: Figure, measures: Sequence[str], seeds: bool) -> None:
    handles = [
        Line2D(
            [], [], label=name, color=INK, marker=mark, markersize=SIZE[mark], linewidth=0,
            markerfacecolor=INK if mark == MARKS[0] else PAPER, markeredgewidth=1.4,
        )
        for name, mark in zip(measures, MARKS, strict=False)
    ]  # fmt: skip
    handles += [
        Line2D([], [], label="80 % interval", color=INK, linewidth=3),
        Line2D([], [], label="95 %", color=INK, linewidth=1.1),
    ]
    if seeds:
        handles.append(Line2D([], [], label="single seeds", color=INK, marker=".", linewidth=0))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 0.0), ncols=len(handles), frameon=False, fontsize=9,
        handletextpad=0.6, columnspacing=1.6,
    )  # fmt: skip


def titles(figure: Figure, title: str, told: str) -> None:
    """Put a title and a grey subtitle above the panels, and lay out the panels below."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, int(9.6 * width))
    top = 0.12
    for line in lines:
        figure.text(0.012, 1 - top / height, line, fontsize=12.5, fontweight="bold", va="top")
        top += 0.24
    for line in textwrap.wrap(told, int(14.5 * width)):
        figure.text(0.012, 1 - (top + 0.03) / height, line, fontsize=9, color="#5d6570", va="top")
        top += 0.18
    bottom = 0.34 if figure.legends else 0.05
    figure.tight_layout(rect=(0, bottom / height, 1, 1 - (top + 0.1) / height), w_pad=2.5)


def _signed(value: float) -> str:
    return "0" if abs(value) < 1e-9 else f"{value:+.3g}".replace("-", MINUS)


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"

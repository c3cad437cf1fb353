"""Plots for people, as PNG files whose bytes depend on the data alone.

Figures are drawn without pyplot: no global state, no window system, and matplotlib's own fonts.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from posttrain.core.files import atomic_write
from posttrain.report.compare import BASELINE, UNTRAINED, Estimate, PolicyResult

BLUE, PALE, GREY, INK, ORANGE = "#1f5a99", "#a9c4e0", "#8a8f96", "#23272e", "#c46a1b"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "figure.dpi": 140,
}
BIN = 0.05


def plot_comparison(
    results: Sequence[PolicyResult], trivial: Mapping[str, float], questions: int, path: Path
) -> None:
    """Accuracy of trivial rules, base, SFT and the methods; beside it the methods' paired change in reward."""
    before = [result for result in results if result.policy in (*UNTRAINED, BASELINE)]
    methods = [result for result in results if result not in before]
    methods.sort(key=lambda result: result.accuracy.value)
    rules = sorted(trivial.items(), key=lambda item: item[1])
    rows = len(rules) + len(results)
    with _figure(path, (10.5, 1.4 + 0.3 * max(rows, 6))) as figure:
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
        for row, (_, value) in enumerate(rules):
            left.plot(value, row, "o", color=GREY, markersize=5)
        for row, result in enumerate([*before, *methods], start=len(rules)):
            _draw(left, result.accuracy, row)
        labels = [rule.replace("_", " ") for rule, _ in rules]
        labels += [result.policy for result in [*before, *methods]]
        _rows(left, labels)
        for label in left.get_yticklabels()[: len(rules)]:
            label.set_color(GREY)
        if rules:
            left.axhline(len(rules) - 0.5, color=GREY, linewidth=0.6)
        left.set_xlim(0, None)
        left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left.set_title("Accuracy on the test questions")
        rules_told = " (grey: rules that read only the candidates)" if rules else ""
        left.set_xlabel(f"program of the answer is right{rules_told}")

        methods.sort(key=lambda result: _change(result).value)
        for row, result in enumerate(methods):
            assert result.expected_reward_change is not None
            _draw(right, _change(result), row)
            _draw(right, result.expected_reward_change, row + 0.25, ORANGE)
        right.axvline(0, color=INK, linewidth=0.8)
        right.xaxis.set_major_locator(MaxNLocator(5))
        _rows(right, [result.policy for result in methods])
        right.set_title("Change in mean reward against SFT")
        right.set_xlabel("of the greedy answer (blue), of a draw (orange)")
        seeds = len(results[0].seeds)
        counted = f"{seeds} seeds" if seeds > 1 else "1 seed"
        figure.text(
            0.01,
            0.005,
            f"{questions} questions, {counted}. Point: mean over seeds; "
            "pale points: single seeds; bars: 80 % and 95 % intervals over questions, "
            "Jeffreys for accuracy, bootstrap for changes.",
            fontsize=8,
            color=GREY,
        )
        figure.tight_layout(rect=(0, 0.04, 1, 1), w_pad=3)


def plot_rewards_by_kind(pools: Iterable[Sequence[Mapping[str, Any]]], path: Path) -> None:
    """How rewards are distributed within each kind of candidate; candidates as in data/rewards."""
    rewards: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    for pool in pools:
        for made in pool:
            rewards[made["kind"]].append(made["reward"])
    kinds = sorted(rewards, key=lambda kind: -float(np.mean(rewards[kind])))
    edges = np.arange(0, 1 + 2 * BIN, BIN) - BIN / 2
    with _figure(path, (6.4, 0.9 + 1.35 * len(kinds))) as figure:
        panels = figure.subplots(len(kinds), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for panel, kind in zip(panels, kinds, strict=True):
            counts, _ = np.histogram(rewards[kind], edges)
            panel.bar(edges[:-1] + BIN / 2, counts / counts.sum(), width=0.8 * BIN, color=BLUE)
            mean = float(np.mean(rewards[kind]))
            panel.set_title(
                f"{kind}: {len(rewards[kind]):,} candidates, mean {mean:.2f}", fontsize=10
            )
            panel.set_ylim(0, 1)
            panel.set_yticks([0, 0.5, 1])
            panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            panel.grid(axis="y", color="#e4e6ea", linewidth=0.6)
            panel.set_axisbelow(True)
        panels[-1].set_xlabel("reward")
        panels[-1].set_xlim(-BIN, 1 + BIN)
        figure.tight_layout(h_pad=0.6)


def plot_margins(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How far chosen and rejected answers lie apart, by kind of pair; `pairs` as in data/preferences."""
    margins: dict[str, list[float]] = {}
    for pair in pairs:
        margins.setdefault(pair["kind"], []).append(pair["margin"])
    kinds = sorted(margins)
    # Bins are centred on multiples of BIN, where differences of weighted verdicts fall.
    edges = np.arange(0, 1 + 2 * BIN, BIN) - BIN / 2
    with _figure(path, (6.4, 1.1 + 1.6 * max(len(kinds), 1))) as figure:
        panels = figure.subplots(max(len(kinds), 1), 1, sharex=True, squeeze=False)[:, 0]
        if not kinds:
            panels[0].set_title("no pairs", fontsize=10)
        for panel, kind in zip(panels, kinds, strict=False):
            counts, _ = np.histogram(margins[kind], edges)
            panel.bar(edges[:-1] + BIN / 2, counts, width=0.8 * BIN, color=BLUE)
            mean = float(np.mean(margins[kind]))
            panel.set_title(
                f"{kind}: {len(margins[kind]):,} pairs, mean margin {mean:.2f}", fontsize=10
            )
        for panel in panels:
            panel.set_ylabel("pairs")
            panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            panel.grid(axis="y", color="#e4e6ea", linewidth=0.6)
            panel.set_axisbelow(True)
        panels[-1].set_xlim(-BIN, 1 + BIN)
        panels[-1].set_xlabel(
            "margin, chosen minus rejected (correctness: reward; quality: quality)"
        )
        figure.tight_layout(h_pad=0.6)


def plot_cost(
    families: Mapping[str, Mapping[str, tuple[float, Estimate]]],
    beaten: Collection[str],
    path: Path,
) -> None:
    """Accuracy with its intervals, and beside it the seconds of training, for the policies of each family.

    families: by family and policy, (seconds, accuracy). beaten: those that another one dominates, as `family/policy`,
    drawn pale.
    """
    heights = [len(points) for points in families.values()]
    with _figure(path, (9, 0.7 + sum(0.3 * height + 0.8 for height in heights))) as figure:
        panels = figure.subplots(
            len(families), 2, squeeze=False, height_ratios=heights, width_ratios=[1.25, 1]
        )
        for (left, right), (family, points) in zip(panels, families.items(), strict=True):
            for row, (policy, (seconds, accuracy)) in enumerate(points.items()):
                color = PALE if f"{family}/{policy}" in beaten else BLUE
                _draw(left, accuracy, row, color)
                right.barh(row, seconds, height=0.55, color=color)
            for panel, title in (
                (left, f"{family}: accuracy on the test questions"),
                (right, "Seconds of training per seed, SFT included"),
            ):
                _rows(panel, list(points))
                panel.set_title(title)
            left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.text(
            0.01,
            0.005,
            "Bars of a point: 80 % and 95 % Jeffreys intervals over questions. "
            "Pale: another one is as accurate in no more time.",
            fontsize=8,
            color=GREY,
        )
        figure.tight_layout(rect=(0, 0.04, 1, 1), w_pad=3, h_pad=1.5)


def _change(result: PolicyResult) -> Estimate:
    assert result.reward_change is not None
    return result.reward_change


def _draw(axes: Axes, estimate: Estimate, row: float, color: str = BLUE) -> None:
    """Intervals and mean of one estimate, with its single seeds if it is a blue one."""
    for interval, width in ((estimate.interval, 1.2), (estimate.inner_interval, 3)):
        if interval is not None:
            axes.plot(interval, [row, row], color=color, linewidth=width, solid_capstyle="butt")
    if len(estimate.seeds) > 1 and color == BLUE:
        values = [seed.value for seed in estimate.seeds]
        below = axes.transData + ScaledTranslation(0, -7 / 72, axes.figure.dpi_scale_trans)
        axes.plot(values, [row] * len(values), "o", color=PALE, markersize=3.5, transform=below)
        # Limits follow only what is drawn in data coordinates.
        axes.update_datalim([(value, row) for value in values])
    axes.plot(estimate.value, row, "o", color=color, markersize=6)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(axis="x", color="#e4e6ea", linewidth=0.6)
    axes.set_axisbelow(True)


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure in the project's style, saved to `path` when the block ends."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        yield figure
        with atomic_write(path, "wb") as file:
            # matplotlib writes its version into the file by default.
            figure.savefig(file, format="png", metadata={"Software": None})

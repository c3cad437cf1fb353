"""The plot of the preference pairs' margins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from posttrain.core.figures import BLUE, LINE, figure_file

BIN = 0.05


def plot_margins(pairs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot the margins between chosen and rejected answers by kind of pair; `pairs` as in data/generator_pairs."""
    margins: dict[str, list[float]] = {}
    for pair in pairs:
        margins.setdefault(pair["kind"], []).append(pair["margin"])
    kinds = sorted(margins)
    # Centred on multiples of BIN, where the differences of weighted parts fall.
    edges = np.arange(0, 1 + 2 * BIN, BIN) - BIN / 2
    with figure_file(path, (6.4, 1.1 + 1.6 * max(len(kinds), 1))) as figure:
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
            panel.grid(axis="y", color=LINE, linewidth=0.6)
            panel.set_axisbelow(True)
        panels[-1].set_xlim(-BIN, 1 + BIN)
        panels[-1].set_xlabel(
            "margin, chosen minus rejected (correctness: reward; quality: quality)"
        )
        figure.tight_layout(h_pad=0.6)

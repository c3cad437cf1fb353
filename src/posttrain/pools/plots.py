"""The plot of the candidates' rewards."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from posttrain.core.figures import BLUE, LINE, figure_file

BIN = 0.05


def plot_rewards_by_kind(pools: Iterable[Sequence[Mapping[str, Any]]], path: Path) -> None:
    """The distribution of rewards within each kind of candidate; candidates as in data/pools."""
    rewards: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    for pool in pools:
        for candidate in pool:
            rewards[candidate["kind"]].append(candidate["reward"])
    kinds = sorted(rewards, key=lambda kind: -float(np.mean(rewards[kind])))
    edges = np.arange(0, 1 + 2 * BIN, BIN) - BIN / 2
    with figure_file(path, (6.4, 0.9 + 1.35 * len(kinds))) as figure:
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
            panel.grid(axis="y", color=LINE, linewidth=0.6)
            panel.set_axisbelow(True)
        panels[-1].set_xlabel("reward")
        panels[-1].set_xlim(-BIN, 1 + BIN)
        figure.tight_layout(h_pad=0.6)

"""PNG files in one style, whose bytes depend on the data alone.

Figures are drawn without pyplot: no global state, no window system, and matplotlib's own fonts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from posttrain.core.files import atomic_write

BLUE, GREY, INK, PAPER, LINE = "#1f5a99", "#8a8f96", "#23272e", "#ffffff", "#e4e6ea"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "ytick.major.size": 0,
    "figure.dpi": 140,
}


@contextmanager
def figure_file(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure in the project's style, saved to `path` when the block ends."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        yield figure
        with atomic_write(path, "wb") as file:
            # matplotlib writes its version into the file by default.
            figure.savefig(file, format="png", metadata={"Software": None})


def write_note(path: Path, text: str) -> None:
    """A picture of one line, in the place of a plot that has nothing to show."""
    with figure_file(path, (10, 0.5)) as figure:
        figure.text(0.012, 0.5, text, color=GREY, va="center")

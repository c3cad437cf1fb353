"""The report's line on how games are made."""

from __future__ import annotations

from posttrain.core.params import Params
from posttrain.environments.sciworld.options import Options
from posttrain.tasks import read_options


def describe(params: Params) -> dict[str, str]:
    """One line, `games`."""
    options = read_options(params, Options)
    turns = options.turns or "twice the expert's and two"
    return {
        "games": f"ScienceWorld's tasks {', '.join(options.tasks)}; {options.text} text; turns at most: {turns}"
    }

"""The report's line on how games are made."""

from __future__ import annotations

from posttrain.core.params import Params
from posttrain.environments.alfworld.options import Options
from posttrain.tasks import read_options


def describe(params: Params) -> dict[str, str]:
    """One line, `games`."""
    options = read_options(params, Options)
    turns = options.turns or "twice the expert's and two"
    made = "generated for ALFWorld's domain" if options.games is None else "ALFWorld's, as stored"
    return {"games": f"{made}: {', '.join(options.kinds)}; turns at most: {turns}"}

"""The report's line on how games are made."""

from __future__ import annotations

from posttrain.core.params import Params
from posttrain.environments.textcraft.options import Options
from posttrain.tasks import read_options


def describe(params: Params) -> dict[str, str]:
    """One line, `games`."""
    options = read_options(params, Options)
    recipes = "generated recipes" if options.recipes is None else f"recipes of {options.recipes}"
    (fewest, most), turns = options.depth, options.turns or "twice the expert's and two"
    return {
        "games": f"TextCraft's rules, {recipes}, depth {fewest} to {most}, at most {options.distractors} distractors; "
        f"turns at most: {turns}"
    }

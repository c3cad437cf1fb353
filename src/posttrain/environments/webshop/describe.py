"""The report's line on how games are made."""

from __future__ import annotations

from posttrain.core.params import Params
from posttrain.environments.webshop.options import Options
from posttrain.tasks import read_options


def describe(params: Params) -> dict[str, str]:
    """One line, `games`."""
    options = read_options(params, Options)
    products = options.products or f"{options.size} generated products"
    turns = options.turns or "twice the expert's and two"
    return {
        "games": f"WebShop's rules and reward (nouns by {options.tagger}), {products}, {options.text} text, "
        f"{options.per_page} of {options.hits} hits a page; turns at most: {turns}"
    }

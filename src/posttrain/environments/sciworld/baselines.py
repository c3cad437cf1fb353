"""How often players without a model reach the goal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from statistics import fmean

from posttrain.environments.sciworld.game import SciWorld
from posttrain.environments.scripted import expert, play_one, random_legal
from posttrain.tasks import Example

EXAMPLES = 10  # the first so many: a list of the legal actions takes a tenth of a second or more


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Success of the expert and of random legal actions in the first `EXAMPLES` examples."""
    game, rows = SciWorld(), [*islice(examples, EXAMPLES)]
    return {
        choose.__name__: fmean(play_one(game, row, choose)[0] == "goal" for row in rows)
        for choose in (expert, random_legal)
    }

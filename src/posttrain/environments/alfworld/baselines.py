"""How often players without a model reach the goal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from posttrain.environments.alfworld.game import ALFWorld
from posttrain.environments.scripted import success_rates
from posttrain.tasks import Example

MOST = 20  # games, as an episode takes up to a second


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Success of the expert, of random legal actions and of the first legal one, in the first games."""
    return success_rates(ALFWorld(), [*islice(examples, MOST)])

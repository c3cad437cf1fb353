"""Players without a model, and how often each reaches the goal: the floor and the ceiling of what a policy can do.

expert          the environment's own
random_legal    one of the actions that can be carried out, at random
first_legal     always the first of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from statistics import fmean
from typing import Any

from posttrain.environments import End, Environment
from posttrain.tasks import Example

Choose = Callable[[Environment, Random], str | None]


def expert(environment: Environment, random: Random) -> str | None:
    """The environment's own expert."""
    return environment.expert()


def random_legal(environment: Environment, random: Random) -> str | None:
    """One of the legal actions."""
    legal = environment.legal()
    return random.choice(legal) if legal else None


def first_legal(environment: Environment, random: Random) -> str | None:
    """The first of the legal actions."""
    legal = environment.legal()
    return legal[0] if legal else None


PLAYERS: Mapping[str, Choose] = {
    "expert": expert,
    "random_legal": random_legal,
    "first_legal": first_legal,
}


def most_turns(expert_turns: int, fixed: int | None) -> int:
    """The most turns of an episode: `fixed`, or twice the expert's and two."""
    return fixed or 2 * expert_turns + 2


def play_one(
    environment: Environment, row: Mapping[str, Any], choose: Choose
) -> tuple[End, float, int]:
    """The end, the sum of the rewards and the turns of one episode; random numbers depend on the row's id alone.

    A turn in which the player has no action to choose is lost.
    """
    random = Random(row["id"])
    environment.reset(row)
    total = 0.0
    for turn in range(1, row["turns"] + 1):
        outcome = environment.step(choose(environment, random) or "")
        total += outcome.reward
        if outcome.end is not None:
            return outcome.end, total, turn
    return "limit", total, row["turns"]


def success_rates(environment: Environment, examples: Iterable[Example]) -> dict[str, float]:
    """Share of the examples in which each player reaches the goal."""
    rows = [*examples]
    return {
        name: fmean(play_one(environment, row, choose)[0] == "goal" for row in rows)
        for name, choose in PLAYERS.items()
    }

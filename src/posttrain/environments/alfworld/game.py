"""Household tasks, played by alfworld's commands in the form of its version 0.4.

    go to shelf 1 | open drawer 2 | close drawer 2 | take mug 1 from shelf 1 | move mug 1 to desk 1
    clean fork 1 with sinkbasin 1 | heat egg 1 with microwave 1 | cool egg 1 with fridge 1 | slice egg 1 with knife 1
    use desklamp 1 | examine mug 1 | look | inventory | help

The reward is 1 when the task is done, which ends the episode, and 0 before. What cannot be done is answered with `Nothing
happens.`. The cap on turns is the row's; alfworld's own is 50.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.environments import Environment, Outcome
from posttrain.environments.alfworld.engine import NOTHING, Engine
from posttrain.environments.alfworld.expert import Expert
from posttrain.environments.alfworld.options import Options
from posttrain.tasks import Example, read_options


class ALFWorld:
    """One game at a time (`posttrain.environments.Environment`). searches: see `Expert`."""

    def __init__(self, searches: bool = True) -> None:
        self._searches = searches
        self._engine = Engine()

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the game of a row; `UserError` if the packages tell it in other words than when the data was made."""
        question = self.begin(row["problem"], row["task"])
        if question != row["question"]:
            raise UserError(
                f"{row['id']}: the packages begin this game with other words than those that made the data; run stage fetch "
                "again"
            )
        return question

    def begin(self, problem: str, task: str) -> str:
        """Begin the game of a PDDL problem, whose goal is `task` in words; its first observation."""
        question = self._engine.begin(problem, task)
        self._task, self._ended, self._plan = task, self._engine.won(), list[str]()
        self._expert = Expert(self._engine.receptacles(), self._searches)
        return question

    @property
    def over(self) -> bool:
        """Whether the episode has ended; at its beginning, if the task is done already."""
        return self._ended

    def step(self, action: str) -> Outcome:
        """Carry out a command."""
        if self._ended:
            raise RuntimeError("the episode has ended")
        action = action.strip()
        observation = self._engine.do(action)
        if observation is None:
            return Outcome(NOTHING, valid=False)
        self._expert.read(observation)
        self._plan = self._plan[1:] if self._plan[:1] == [action] else []
        self._ended = self._engine.won()
        if self._ended:
            return Outcome(observation, 1.0, "goal")
        return Outcome(observation)

    def legal(self) -> list[str]:
        """The admissible commands, sorted."""
        return self._engine.commands()

    def expert(self) -> str | None:
        """A good command in the present state; None where the goal can no longer be reached."""
        if self._ended:
            return None
        # A plan is kept as long as it is followed, as another of the same length could lead back.
        self._plan = self._plan or self._engine.plan()
        return self._expert.choose(self._plan, self.legal())

    def state_key(self) -> str:
        """A hash of the task and of all that holds."""
        return hashlib.sha256("\n".join([self._task, *self._engine.facts()]).encode()).hexdigest()

    def close(self) -> None:
        """Give back the engine."""
        self._engine.close()


def open(params: Params, example: Example) -> Environment:
    """The engine, and the expert of the data set's options; each row has its game."""
    return ALFWorld(read_options(params, Options).expert == "search")

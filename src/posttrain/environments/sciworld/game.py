"""Tasks of ScienceWorld, played by its commands.

    open door to kitchen | go to kitchen | look around | pick up thermometer | move metal pot to stove | focus on water

The package's score is 0 to 100, and -100 after a `focus on` the wrong thing. The reward is the change of the score / 100, so
that of an episode is its last score / 100; it ends at 100 with `goal`, and below 0 with `failed`. What was earned is lost
then: the return is 0, which is that of doing nothing, and not -1, so that it is within 0 and 1 as everywhere. Turns are
counted by whoever plays: the package's own limit is in its time, in which `wait` takes ten steps and `look around` none.

A request that may mean several things is answered by a list of them, and the next action is the number of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.environments import Environment, Outcome
from posttrain.environments.sciworld.engine import Machine, machine
from posttrain.environments.sciworld.text import shorten
from posttrain.tasks import Example

LOOK = "look around"
FREE = (LOOK, "inventory", "task", "help", "objects")  # take no time and change nothing
_UNKNOWN = ("No known action matches that input.", "Unknown action.")
_AMBIGUOUS = "Ambiguous request"
WHOLE = 100


class SciWorld:
    """One game at a time (`posttrain.environments.Environment`); all of a process share one Java machine."""

    def __init__(self, text: str = "short") -> None:
        self._short = text == "short"
        self._machine: Machine | None = None
        self._game: Any = None
        self._ended = True

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the game of a row; `UserError` if this version of the package makes another one of its variation."""
        self._short = row["text"] == "short"
        question = self.begin(row["task"], row["seed"], row["gold"])
        if question != row["question"]:
            raise UserError(
                f"{row['id']}: this version of scienceworld makes another game of task {row['task']} and variation "
                f"{row['seed']} than the one that made the data; run stage fetch again"
            )
        return question

    def begin(self, task: str, variation: int, gold: Sequence[str] = ()) -> str:
        """Begin the game of a task and a variation; its first observation. gold: a path to its goal, for the expert."""
        self._task, self._variation, self._gold = task, variation, [*gold]
        self._place: int | None = 0  # on the path; None off it
        self._taken: list[str] = []
        self.score = 0
        description, seen = self._load()
        self._ended = self._asked = False
        return self._written(f"{description}\n{seen}")

    def step(self, action: str) -> Outcome:
        """Carry out an action."""
        if self._ended:
            raise RuntimeError("the episode has ended")
        action = action.strip().lower()
        before = max(0, self.score)
        self._restore()
        said, complete = self._carry_out(action)
        self._taken.append(action)
        valid = not said.startswith(_UNKNOWN)
        self._follow(action, valid)
        self._asked = said.startswith(_AMBIGUOUS)
        reward = (max(0, self.score) - before) / WHOLE
        if self.score >= WHOLE:
            end: Literal["goal", "failed"] | None = "goal"
        else:
            end = "failed" if self.score < 0 or complete else None
        self._ended = end is not None
        return Outcome(self._written(said), reward, end, valid)

    def legal(self) -> list[str]:
        """What the package lists as valid, sorted: up to some thousand actions, in a fifth of a second."""
        self._restore()
        assert self._machine is not None
        with self._machine.watched():
            self._machine.set_chance(self._variation, self._moves)
            found = self._machine.read(self._game.getValidActionObjectCombinations())
        return [*dict.fromkeys(found)]

    def expert(self) -> str | None:
        """The next action of the row's path; None once anything else has taken time."""
        if self._ended or self._place is None or self._place == len(self._gold):
            return None
        return self._gold[self._place]

    def state_key(self) -> str:
        """A hash of all objects with their properties, what of the task is done, and the question that is open."""
        self._restore()
        assert self._machine is not None
        with self._machine.watched():
            state = (
                self._task,
                self._game.getObjectTree(""),
                self._game.getGoalProgressStr(),
                self._taken[-1] if self._asked else "",
            )
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def close(self) -> None:
        """Give back the game. The machine stays, for the next one."""
        if self._machine is not None:
            self._machine.release(self._game)
        self._machine = self._game = None
        self._ended = True

    def gold_path(self, task: str, variation: int) -> list[str]:
        """Actions from the start to the goal, made by the package's own agent, which knows the whole house."""
        self._task, self._variation = task, variation
        self._load(gold=True)
        assert self._machine is not None
        with self._machine.watched():
            return self._machine.read(self._game.getGoldActionSequence())

    def variations(self, task: str) -> dict[str, list[int]]:
        """The variations of a task, by split."""
        self._task, self._variation = task, 0
        self._load()  # before, the package knows of none
        assert self._machine is not None
        with self._machine.watched():
            lists = {
                "train": self._game.getVariationsTrain(),
                "val": self._game.getVariationsDev(),
                "test": self._game.getVariationsTest(),
            }
            return {split: json.loads(found.toString()) for split, found in lists.items()}

    def _load(self, gold: bool = False) -> tuple[str, str]:
        """Load the game; its task and what is seen first."""
        present = machine()
        if self._game is None or self._machine is not present:
            self._machine, self._game = present, present.new_game()
        self._moves = 0
        with present.watched():
            error = self._game.load(self._task, self._variation, "", gold)
            if error:
                raise RuntimeError(error)
            description = self._game.getTaskDescription()
            present.set_chance(self._variation, 0)
            return description, self._game.step(LOOK)

    def _restore(self) -> None:
        """Repeat the actions so far in another machine if the one that they were taken in has ended."""
        if self._machine is not None and self._machine.alive:
            return
        self._load()
        for action in self._taken:
            self._carry_out(action)

    def _carry_out(self, action: str) -> tuple[str, bool]:
        """What the simulator says to an action, and whether it takes the task for over."""
        assert self._machine is not None
        with self._machine.watched():
            self._machine.set_chance(self._variation, self._moves)
            said = self._game.step(action)
            self.score = round(WHOLE * self._game.getScore())
            complete = self._game.getCompleted()
            if self.score < 0 and self._game.agentInterface().get().isInErrorState():
                raise RuntimeError(f"the simulator: {said}")
        if action not in FREE and not said.startswith(_UNKNOWN):
            self._moves += 1
        return said, complete

    def _follow(self, action: str, valid: bool) -> None:
        """Move on along the path, or off it."""
        if self._place is None:
            return
        if action == self.expert():
            self._place += 1
        elif self._asked or (valid and action not in FREE):
            self._place = None

    def _written(self, text: str) -> str:
        return shorten(text) if self._short else text


def open(params: Params, example: Example) -> Environment:
    """The engine; each row names its task and variation."""
    return SciWorld()

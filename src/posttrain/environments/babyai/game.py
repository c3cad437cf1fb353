"""Missions of minigrid, played by AgentGym's actions.

    turn left | turn right | move forward | drop | toggle
    go to red ball 1 | pickup red ball 1 (or pick up)
    go through red open door 1 | toggle and go through red closed door 1
    check available actions

`red ball 1` is a name that the observation gives. Going somewhere takes as many of minigrid's steps as the way has. The
reward is minigrid's, once: 1 - 0.9 * steps / most steps when the mission is accomplished. The episode ends then, when the
mission can no longer be accomplished, or when minigrid's steps are used up.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.environments import Environment, Outcome
from posttrain.environments.babyai.engine import begin, make
from posttrain.environments.babyai.expert import Expert
from posttrain.environments.babyai.view import View
from posttrain.tasks import Example

CHECK = "check available actions"
_ACTION = re.compile(
    "turn left|turn right|move forward|drop|toggle|(go to|pickup|go through|toggle and go through) .+"
)


class BabyAI:
    """One game at a time (`posttrain.environments.Environment`). Levels are made when they are first played."""

    def __init__(self) -> None:
        self._engines: dict[str, Any] = {}
        self._experts: dict[str, Expert] = {}

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the game of a row; `UserError` if this version of minigrid makes another one of its seed."""
        question = self.begin(row["level"], row["seed"])
        if question != row["question"]:
            raise UserError(
                f"{row['id']}: this version of minigrid makes another game of level {self._level} and seed "
                f"{self._seed} than the one that made the data; run stage fetch again"
            )
        return question

    def begin(self, level: str, seed: int) -> str:
        """Begin the game of a level and a seed; its first observation."""
        if level not in self._engines:
            self._engines[level] = make(level)
        self._level, self._seed = level, seed
        self._engine = self._engines[level]
        self._look(begin(self._engine, seed))
        self._taken: list[int] = []
        self._ended = False
        return f"Goal: {self._engine.mission}\n{self._view.text()}"

    def step(self, action: str) -> Outcome:
        """Carry out an action."""
        if self._ended:
            raise RuntimeError("the episode has ended")
        action = re.sub(r"^pick up ", "pickup ", action.strip().lower())
        if action == CHECK:
            return Outcome(f"Actions: {', '.join(self._actions)}")
        steps = self._actions.get(action)
        if steps is None:
            known = _ACTION.fullmatch(action) is not None
            return Outcome("Not possible now" if known else "Not an action", valid=False)
        reward, terminated, truncated = 0.0, False, False
        for step in steps:
            seen, reward, terminated, truncated, _ = self._engine.step(step)
            self._taken.append(step)
            if terminated or truncated:
                break
        self._look(seen["image"])
        self._ended = terminated or truncated
        if not self._ended:
            return Outcome(self._view.text())
        if not terminated:
            return Outcome("No steps are left", end="limit")
        if reward > 0:
            return Outcome("The goal is reached", float(reward), "goal")
        return Outcome("The goal can no longer be reached", end="failed")

    def legal(self) -> list[str]:
        """The actions that can be taken, in AgentGym's order."""
        return [*self._actions, CHECK]

    def expert(self) -> str | None:
        """The bot's action in the present state; None where it knows none."""
        if self._ended:
            return None
        if self._level not in self._experts:
            self._experts[self._level] = Expert(self._level)
        return self._experts[self._level].choose(self._seed, self._taken, self._view, self._actions)

    def state_key(self) -> str:
        """A hash of the mission, what of it is done, the grid, and the agent with what it carries."""
        engine = self._engine
        state = (
            engine.mission,
            _done(engine.instrs),
            engine.grid.encode().tolist(),
            [int(place) for place in engine.agent_pos],
            int(engine.agent_dir),
            self._view.carrying,
        )
        return hashlib.sha256(repr(state).encode()).hexdigest()

    def close(self) -> None:
        """Give back the levels."""
        for engine in self._engines.values():
            engine.close()
        self._engines, self._experts = {}, {}

    def _look(self, image: Any) -> None:
        self._view = View(image)
        self._actions = self._view.actions()


def _done(instruction: Any) -> list[Any]:
    """What of a mission in parts is done."""
    parts = [getattr(instruction, name, None) for name in ("instr_a", "instr_b")]
    done = [str(getattr(instruction, name, "")) for name in ("a_done", "b_done")]
    return [*done, *(_done(part) for part in parts if part is not None)]


def open(params: Params, example: Example) -> Environment:
    """The engine; each row names its level and seed."""
    return BabyAI()

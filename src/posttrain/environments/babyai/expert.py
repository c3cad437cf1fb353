"""The expert: minigrid's `BabyAIBot`, and its steps as actions of this environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.environments.babyai.engine import begin, make
from posttrain.environments.babyai.view import (
    DONE,
    DROP,
    FORWARD,
    LEFT,
    PICKUP,
    RIGHT,
    TOGGLE,
    Place,
    View,
)

SEARCHES = 100  # of the bot for a way, in one step: at most 9 were seen, and in a few games it would search for ever
_WORDS = {
    LEFT: "turn left",
    RIGHT: "turn right",
    FORWARD: "move forward",
    DROP: "drop",
    TOGGLE: "toggle",
}


def _bot(engine: Any) -> Any:
    """minigrid's bot, with an end to its searches."""
    from minigrid.utils.baby_ai_bot import BabyAIBot

    class Bot(BabyAIBot):  # type: ignore[misc]
        searches = 0

        def _breadth_first_search(self, *arguments: Any, **names: Any) -> Any:
            self.searches += 1
            assert self.searches < SEARCHES
            return super()._breadth_first_search(*arguments, **names)

    return Bot(engine)


class Expert:
    """The bot in a copy of the game of its own, which it follows step by step, whoever took them."""

    def __init__(self, level: str) -> None:
        self._engine = make(level)
        self._seed: int | None = None
        self._taken: list[int] = []
        self._bot: Any = None
        self._next: int | None = None  # the bot's step; None if it is lost

    def choose(
        self, seed: int, taken: Sequence[int], view: View, actions: Mapping[str, Sequence[int]]
    ) -> str | None:
        """One of the actions, for a game in which minigrid's steps `taken` led to the view; None if the bot is lost."""
        self._follow(seed, taken)
        if self._next is None:
            return None
        action = self._macro(view)
        if action not in actions:
            action = self._primitive(view)
        return action if action in actions else None

    def _follow(self, seed: int, taken: Sequence[int]) -> None:
        from minigrid.utils.baby_ai_bot import DisappearedBoxError

        if seed != self._seed or self._taken != taken[: len(self._taken)]:
            begin(self._engine, seed)
            self._seed, self._taken = seed, []
            self._bot, self._next = _bot(self._engine), None
            ahead = [None, *taken]
        else:
            ahead = [*taken[len(self._taken) :]]
        for step in ahead:
            if step is not None:
                self._engine.step(step)
                self._taken.append(step)
            if self._bot is None:
                continue
            self._bot.searches = 0
            try:
                self._next = self._bot.replan(step)
            # It asserts what holds on its own way, and not on every other.
            except (AssertionError, AttributeError, IndexError, DisappearedBoxError):
                self._bot = self._next = None

    def _macro(self, view: View) -> str | None:
        """To go to what the bot goes to next, and to pick it up if that is why."""
        from minigrid.core.world_object import WorldObj
        from minigrid.envs.babyai.core.verifier import ObjDesc
        from minigrid.utils.baby_ai_bot import GoNextToSubgoal, PickupSubgoal

        subgoals = self._bot.stack
        if not subgoals:
            return self._go_to(view, (0, 1)) if self._next == DONE else None
        if not isinstance(subgoals[-1], GoNextToSubgoal) or subgoals[-1].reason == "PutNext":
            return None
        place = subgoals[-1].datum
        if isinstance(place, ObjDesc):
            _, place = self._bot._find_obj_pos(place)
        elif isinstance(place, WorldObj):
            place = place.cur_pos
        if place is None:
            return None
        thing = view.at(self._seen_at(place))
        if thing is None:
            return None
        pickup = len(subgoals) > 1 and isinstance(subgoals[-2], PickupSubgoal)
        return f"{'pickup' if pickup else 'go to'} {thing}"

    def _primitive(self, view: View) -> str | None:
        if self._next == PICKUP:
            thing = view.at((0, 1))
            return None if thing is None else f"pickup {thing}"
        return None if self._next is None else _WORDS.get(int(self._next))

    def _go_to(self, view: View, place: Place) -> str | None:
        thing = view.at(place)
        return None if thing is None else f"go to {thing}"

    def _seen_at(self, place: Any) -> Place:
        """A place of the grid as the agent sees it."""
        engine = self._engine
        x, y = (int(place[axis]) - int(engine.agent_pos[axis]) for axis in (0, 1))
        right, ahead = engine.right_vec, engine.dir_vec
        return int(x * right[0] + y * right[1]), int(x * ahead[0] + y * ahead[1])

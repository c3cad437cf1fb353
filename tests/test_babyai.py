"""BabyAI in words: the view, the macro actions, the mission's text, and the engine's reward, once."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import need_minigrid
from toys import PARAMS, ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import check_params
from posttrain.environments.babyai import engine
from posttrain.environments.babyai.game import BabyAI
from posttrain.environments.babyai.view import (
    DONE,
    DROP,
    FORWARD,
    LEFT,
    PICKUP,
    RIGHT,
    TOGGLE,
    View,
)
from posttrain.tasks import get_task

EMPTY, WALL, DOOR, KEY, BALL, BOX = 1, 2, 4, 5, 6, 7
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)


class Image(list[Any]):
    """Like an array of cells."""

    def tolist(self) -> Any:
        return self


def view(
    things: dict[tuple[int, int], tuple[int, int, int]], held: tuple[int, int] = (1, 0)
) -> View:
    """A room seven wide and six ahead, with these things (right, ahead); what the agent carries."""
    cells = {(right, ahead): (EMPTY, 0, 0) for right in range(-3, 4) for ahead in range(6)}
    cells |= things | {(0, 0): (*held, 0)}
    rows = [
        [cells.get((right, 6 - row), (WALL, GREY, 0)) for row in range(7)] for right in range(-3, 4)
    ]
    return View(Image(rows))


def test_each_fact_is_a_line_and_near_things_come_first() -> None:
    seen = view(
        {(0, 2): (BALL, RED, 0), (-1, 4): (BALL, RED, 0), (2, 0): (DOOR, BLUE, 2)}, (KEY, GREY)
    )
    assert seen.text().splitlines() == [
        "blue locked door 1: 2 right",
        "red ball 1: 2 ahead",
        "red ball 2: 4 ahead, 1 left",
        "wall: 6 ahead",
        "carrying: grey key",
    ]


def test_macro_actions_go_the_shortest_way() -> None:
    actions = view({(0, 2): (BALL, RED, 0), (2, 3): (BOX, GREEN, 0)}).actions()
    assert actions["go to red ball 1"] == [FORWARD]
    assert actions["pickup red ball 1"] == [FORWARD, PICKUP]
    assert sorted(actions["go to green box 1"]) == [LEFT, RIGHT, *[FORWARD] * 4]
    assert [*actions][:3] == ["turn left", "turn right", "move forward"]


def test_what_stands_in_front_is_gone_to_by_waiting() -> None:
    actions = view({(0, 1): (BALL, RED, 0)}).actions()
    assert actions["go to red ball 1"] == [DONE]
    assert "move forward" not in actions and "toggle" not in actions


@pytest.mark.parametrize(
    ("state", "held", "way"),
    [
        (0, (1, 0), {"go through red open door 1": [FORWARD], "toggle": [TOGGLE]}),
        (1, (1, 0), {"toggle and go through red closed door 1": [TOGGLE, FORWARD]}),
        (2, (1, 0), {}),
        (2, (KEY, BLUE), {"drop": None}),
        (2, (KEY, RED), {"toggle and go through red locked door 1": [TOGGLE, FORWARD]}),
    ],
)
def test_doors_are_gone_through_if_they_can_be(state: int, held: Any, way: Any) -> None:
    actions = view({(0, 1): (DOOR, RED, state)}, held).actions()
    for name, steps in way.items():
        assert actions.get(name) == steps
    assert ("toggle" in actions) == bool(way and "drop" not in way)
    assert not [name for name in actions if "through" in name and name not in way]


def test_one_thing_at_a_time_is_carried_and_dropped_on_a_free_cell() -> None:
    things = {(1, 1): (KEY, RED, 0)}
    assert view(things).actions()["pickup red key 1"] == [FORWARD, RIGHT, PICKUP]
    carrying = view(things, (BALL, BLUE)).actions()
    assert "pickup red key 1" not in carrying and carrying["drop"] == [DROP]
    assert "drop" not in view({(0, 1): (BOX, RED, 0)}, (BALL, BLUE)).actions()


def test_what_is_shut_in_cannot_be_reached() -> None:
    shut = {(2, 3): (BALL, RED, 0)} | dict.fromkeys(
        ((1, 3), (3, 3), (2, 2), (2, 4)), (BOX, GREY, 0)
    )
    actions = view(shut).actions()
    assert "go to red ball 1" not in actions and "go to grey box 1" in actions


# ------------------------------------------------------------------------------- with minigrid


@pytest.fixture(scope="module")
def game() -> BabyAI:
    need_minigrid()
    return BabyAI()


def seed_with(game: BabyAI, level: str, text: str) -> int:
    return next(seed for seed in range(500) if text in game.begin(level, seed))


def test_a_late_success_ends_the_episode_and_is_paid_once(game: BabyAI) -> None:
    """AgentGym's wrapper goes on after a success with a reward of at most 0.5, and adds it to the score again."""
    game.begin("GoToObj", 3)
    while game._engine.step_count < 50:
        assert game.step("turn left").end is None
    while (action := game.expert()) is not None:
        outcome = game.step(action)
        if outcome.end is not None:
            break
    assert outcome.end == "goal" and outcome.reward == pytest.approx(
        1 - 0.9 * game._engine.step_count / 64
    )
    assert 0 < outcome.reward < 0.5
    with pytest.raises(RuntimeError):
        game.step("turn left")


def test_the_engines_own_limit_ends_an_episode_without_a_reward(game: BabyAI) -> None:
    game.begin("GoToRedBallNoDists", 0)
    outcomes = []
    while not outcomes or outcomes[-1].end is None:
        outcomes.append(game.step("turn left" if "red" in game._view.text() else "turn right"))
    last = outcomes[-1]
    assert (len(outcomes), last.end, last.reward) == (64, "limit", 0.0)


def test_a_mission_that_can_no_longer_be_accomplished_has_failed(game: BabyAI) -> None:
    """The level in which the wrong door ends the mission."""
    for seed in range(200):
        game.begin("OpenDoorsOrderN4Debug", seed)
        wanted = game._engine.mission
        wrong = [
            name
            for name in game.legal()
            if name.startswith("toggle and") and name.split()[4] not in wanted
        ]
        if wrong:
            outcome = game.step(wrong[0])
            assert (outcome.end, outcome.reward) == ("failed", 0.0)
            return
    pytest.fail("no layout with a wrong door in sight")


def test_the_missions_order_stays_in_its_words(game: BabyAI) -> None:
    for word in (", then ", " after you "):
        seed = seed_with(game, "OpenDoorsOrderN4", word)
        first = game.begin("OpenDoorsOrderN4", seed)
        assert first.splitlines()[0] == f"Goal: {game._engine.mission}" and word in first


def test_pick_up_is_pickup_and_case_does_not_matter(game: BabyAI) -> None:
    for action in ("pickup {}", "pick up {}", "Pick Up {}"):
        game.begin("PickupLoc", seed_with(game, "PickupLoc", "ball 1:"))
        thing = next(str(thing) for thing in game._view.things if f"pickup {thing}" in game.legal())
        assert game.step(action.format(thing)).valid
        assert game._engine.carrying is not None or game._ended


def test_actions_can_be_asked_for_at_the_cost_of_a_turn_and_no_step(game: BabyAI) -> None:
    game.begin("GoToObj", 0)
    outcome = game.step("check available actions")
    assert outcome.observation.startswith("Actions: turn left, turn right, ")
    assert outcome.valid and game._engine.step_count == 0


def test_the_expert_gives_up_where_the_bot_would_search_for_ever(game: BabyAI) -> None:
    game.begin("GoToImpUnlock", 6)
    actions = 0
    while (action := game.expert()) is not None and actions < 200:
        if game.step(action).end is not None:
            break
        actions += 1
    assert actions < 200


def test_a_row_of_another_version_of_minigrid_is_one_line(game: BabyAI) -> None:
    row = {"id": "t-0", "level": "GoToObj", "seed": 0, "question": "Goal: something else"}
    with pytest.raises(UserError, match="t-0: this version of minigrid makes another game"):
        game.reset(row)


def test_minigrid_prints_nothing() -> None:
    need_minigrid()
    code = (  # in these games minigrid tells of 18 layouts that it rejects
        "from posttrain.environments.babyai.game import BabyAI\n"
        "game = BabyAI()\n"
        "for seed in range(20): game.begin('PutNextLocalS5N3', seed)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_without_minigrid_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name in ("minigrid", "gymnasium"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    params = check_params(PARAMS.model_dump() | {"dataset": "babyai"})
    with pytest.raises(UserError) as caught:
        get_task("babyai").fetch(params, tmp_path / "out")
    assert str(caught.value) == (
        "the environment babyai needs the package gymnasium; pip install -r requirements-environments.txt"
    )
    with pytest.raises(UserError):
        engine.make("GoToObj")

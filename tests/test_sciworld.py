"""ScienceWorld: its score as reward, wrong answers, games that share a Java machine, machines that hang or are killed."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from needs import need_scienceworld
from toys import PARAMS, ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import Params, check_params
from posttrain.environments import Outcome, read_action, write_action
from posttrain.environments.sciworld import engine
from posttrain.environments.sciworld.engine import Machine, machine
from posttrain.environments.sciworld.game import SciWorld
from posttrain.environments.sciworld.text import LONGEST, shorten
from posttrain.environments.scripted import expert, play_one, random_legal
from posttrain.models.load import load_tokenizer
from posttrain.rollouts.episode import Episode
from posttrain.rollouts.play import Scripted, play, time_limit
from posttrain.tasks import get_task

Row = dict[str, Any]
JUNK = ("get 999 x", "win", "focus on", "9" * 30, "connect " + "x to " * 20 + "x", "score 100")

HALL = """This room is called the hallway. In it, you see: \n\tthe agent\n\ta substance called air\n\ta picture
\ta sink, which is turned off. In the sink is: nothing.
\ta oven, which is turned on. The oven door is open. In the oven is: a tin cup (containing a substance called water).
\ta table. On the table is: an apple, a glass cup (containing nothing).
\ta fridge. The fridge door is closed. \n\ta thermometer, currently reading a temperature of -5 degrees celsius
You also see:\n\tA door to the kitchen (that is open)\n\tA door to the outside (that is closed)"""


def test_the_short_text_has_the_same_things_and_states_in_fewer_words() -> None:
    assert shorten(f"Your task is to find the apple.\n{HALL}").splitlines() == [
        "Your task is to find the apple.",
        "hallway:",
        "picture",
        "sink (off)",
        "oven (on) (open): tin cup (containing water)",
        "table: apple, glass cup (empty)",
        "fridge (closed)",
        "thermometer (-5 degrees)",
        "doors to: kitchen (open), outside (closed)",
    ]
    assert shorten("The door is now open.") == "The door is now open."
    assert len(shorten("0: x\n" * 1000)) == LONGEST


# --------------------------------------------------------------------------------- with Java


def chosen(**options: Any) -> Params:
    """The parameters with a small data set."""
    values = PARAMS.model_dump()
    values["datasets"]["sciworld"] |= {"train": 2, "val": 1, "test": 1, "options": options}
    values["episodes"]["seconds"] = 300  # a machine takes some to start beside other work
    return check_params(values | {"dataset": "sciworld"})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of all splits."""
    need_scienceworld()
    folder = tmp_path_factory.mktemp("games")
    params, task = chosen(tasks=["find-non-living-thing", "find-animal"]), get_task("sciworld")
    task.fetch(params, folder / "sciworld")
    return [
        {**row, "prompts": {"direct": task.prompt(row)}}
        for split in ("train", "val", "test")
        for row in task.examples(params, split, folder / "sciworld")
    ]


def played(game: SciWorld, row: Row) -> list[Outcome]:
    """The outcomes of the gold path."""
    game.reset(row)
    return [game.step(action) for action in row["gold"]]


def episode(row: Row) -> Episode:
    """The expert's, in the engine."""
    return play(Scripted(expert, "short"), get_task("sciworld"), chosen(), [(row, 0)])[0]


def test_the_expert_reaches_every_goal_with_a_return_of_1(rows: list[Row]) -> None:
    game = SciWorld()
    for row in rows:
        end, total, turns = play_one(game, row, expert)
        assert (end, turns, game.score) == ("goal", row["expert_turns"], 100)
        assert total == pytest.approx(1)
    with pytest.raises(RuntimeError, match="ended"):
        game.step("look around")
    assert game.expert() is None
    assert rows[0]["seed"] in game.variations(rows[0]["task"])["train"]
    assert rows[-1]["seed"] in game.variations(rows[-1]["task"])["test"]


def earned(game: SciWorld, row: Row, answer: Callable[[SciWorld, Random], str]) -> float:
    """The sum of the rewards of a player that writes whole answers, over at most three turns."""
    random, total = Random(row["id"]), 0.0
    game.reset(row)
    for _ in range(3):
        action = read_action(answer(game, random), "short")
        if action.text is not None:
            outcome = game.step(action.text)
            total += outcome.reward
            if outcome.end is not None:
                break
    return total


@pytest.mark.parametrize(
    "answer",
    [
        lambda game, random: write_action(random_legal(game, random) or "", "short"),
        lambda game, random: write_action(game.legal()[0], "short"),
        lambda game, random: write_action(random.choice(JUNK), "short"),
        lambda game, random: random.choice(JUNK),
        lambda game, random: 2 * write_action(game.expert() or "", "short"),
        lambda game, random: f"Action: {game.expert()}\n{game.expert()}",
        lambda game, random: write_action("reset task", "short"),
        lambda game, random: write_action("focus on picture", "short"),
    ],
    ids=["random", "first", "junk", "no form", "two actions", "two lines", "reset task", "focus"],
)
def test_no_player_earns_more_than_the_honest_one(answer: Any, rows: list[Row]) -> None:
    game, row = SciWorld(), rows[0]
    total = earned(game, row, answer)
    assert 0 <= total < 1
    if read_action(answer(game, Random(0)), "short").text is None:
        assert total == 0


WAY = ["open door to greenhouse", "go to greenhouse"]  # of find-animal 0


def test_a_wrong_focus_fails_and_what_was_earned_is_lost(rows: list[Row]) -> None:
    game = SciWorld()
    game.begin("find-animal", 0)
    before = sum(game.step(action).reward for action in WAY)
    outcome = game.step("focus on air")
    assert (outcome.end, game.score) == ("failed", -100)
    assert before > 0 and before + outcome.reward == pytest.approx(0)


def test_goals_that_are_reset_and_reached_again_are_not_paid_twice(rows: list[Row]) -> None:
    game, row = SciWorld(), rows[1]
    game.reset(row)
    first = sum(game.step(action).reward for action in row["gold"][:-1])
    again = game.step("reset task").reward
    focus = next(action for action in row["gold"] if action.startswith("focus"))
    more = game.step(focus).reward
    assert again < 0 and first + again + more == pytest.approx(max(0, game.score) / 100)
    assert game.expert() is None


def test_what_cannot_be_done_changes_nothing_and_the_expert_goes_on(rows: list[Row]) -> None:
    game = SciWorld()
    game.begin("find-animal", 0, WAY)
    before = game.state_key()
    for action in (*JUNK, f"{WAY[0]}, {WAY[0]}"):
        outcome = game.step(action)
        assert outcome == Outcome(outcome.observation, valid=False) and outcome.observation
    assert game.step("Look Around").valid and game.step("inventory").valid
    assert game.state_key() == before and game.expert() == WAY[0]
    legal = game.legal()
    assert legal == sorted({*legal}) and "open door to kitchen" in legal
    game.step("wait1")
    assert game.state_key() != before and game.expert() is None


def test_games_in_one_machine_are_those_that_are_played_alone(rows: list[Row]) -> None:
    games = [SciWorld() for _ in rows]
    alone = [(played(game, row), game.state_key()) for game, row in zip(games, rows, strict=True)]
    together: list[list[Outcome]] = [[] for _ in rows]
    for game, row in zip(games, rows, strict=True):
        game.reset(row)
    games[0].legal()
    for turn in range(max(len(row["gold"]) for row in rows)):
        for game, row, told in zip(games, rows, together, strict=True):
            if turn < len(row["gold"]):
                told.append(game.step(row["gold"][turn]))
    keys = [game.state_key() for game in games]
    assert [*zip(together, keys, strict=True)] == alone and len({*keys}) == len(rows)


def test_a_killed_machine_is_replaced_and_the_games_go_on(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a call, which the rollout engine repeats in a new game; the other game notices it before its next step."""
    row, other = max(rows, key=lambda row: row["expert_turns"]), SciWorld()
    whole, rest = episode(row), played(other, rows[0])
    other.reset(rows[0])
    told = [other.step(action) for action in rows[0]["gold"][:2]]
    left, original, first = iter(range(4)), Machine.set_chance, machine()

    def deadly(self: Machine, *given: Any) -> None:
        original(self, *given)
        if next(left, None) is None and self is first:
            os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(Machine, "set_chance", deadly)
    assert episode(row) == whole and whole.end == "goal"
    assert not first.alive and machine().alive
    assert [*told, *(other.step(action) for action in rows[0]["gold"][2:])] == rest


BEGUN = """
import json, sys, time
from posttrain.environments.sciworld.engine import machine
from posttrain.environments.sciworld.game import SciWorld
row, game = json.load(sys.stdin), SciWorld()
question = game.begin(row["task"], row["seed"])
print(json.dumps([machine()._process.pid, question, game.state_key()]), flush=True)
time.sleep(600)
"""


def test_another_process_begins_the_same_game_and_takes_its_machine_with_it(
    rows: list[Row],
) -> None:
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", BEGUN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(rows[0]).encode())
        process.stdin.close()
        java, question, key = json.loads(process.stdout.readline())
        game = SciWorld()
        assert (question, key) == (game.reset(rows[0]), game.state_key())
        assert psutil.pid_exists(java)
        process.kill()
    end = time.monotonic() + 30
    while psutil.pid_exists(java) and time.monotonic() < end:
        time.sleep(0.05)
    assert not psutil.pid_exists(java)


def test_resets_leave_no_thread_process_or_file_behind(rows: list[Row]) -> None:
    here, game = psutil.Process(), SciWorld()
    game.reset(rows[0])

    def counts() -> tuple[int, ...]:
        java = psutil.Process(machine()._process.pid)
        return (
            threading.active_count(),
            len(here.children()),
            here.num_fds(),
            java.num_fds(),
        )

    before = counts()
    for number in range(10):  # benchmarks/environments.py does hundreds
        game.reset(rows[number % len(rows)])
    game.close()
    assert counts() == before


def test_a_prompt_is_short_and_ends_with_the_first_observation(rows: list[Row]) -> None:
    task, tokenizer = get_task("sciworld"), load_tokenizer(str(ROOT / "pretrain/pocket"), None)
    for row in rows:
        texts = {v: task.prompt(row, v) for v in ("direct", "reflective", "deliberative")}
        assert len({*texts.values()}) == 3
        assert all(text.endswith(f"\n{row['question']}") for text in texts.values())
        assert len(tokenizer(texts["direct"])["input_ids"]) < 512
        assert read_action(task.target(row), "short").text == row["gold"][0]
    assert task.measure(rows)["kinds"] == {"find-animal": 1, "find-non-living-thing": 3}


def test_a_row_of_another_version_or_form_of_text_is_one_line(rows: list[Row]) -> None:
    game = SciWorld()
    with pytest.raises(UserError, match="train-0: this version of scienceworld makes another game"):
        game.reset(rows[0] | {"text": "original"})
    assert "You also see:\n\tA door to " in game.begin("find-animal", 0)


def test_options_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    need_scienceworld()
    for options, problem in (
        ({"tasks": ["boill"]}, "options.tasks: 'boill' is not one of the tasks; did you mean"),
        ({"tasks": ["grow-plant"]}, "options.tasks: 'grow-plant' is not one of the tasks"),
        ({"text": "long"}, "options: text"),
    ):
        with pytest.raises(UserError, match=problem):
            get_task("sciworld").fetch(chosen(**options), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_a_machine_that_hangs_is_ended_at_the_time_limit(rows: list[Row]) -> None:
    game, present = SciWorld(), machine()
    game.reset(rows[0])
    os.kill(present._process.pid, signal.SIGSTOP)
    while psutil.Process(present._process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    time.sleep(0.2)  # the state is that of its first thread; the others stop one after another
    with pytest.raises(TimeoutError, match=r"took more than 0\.5 seconds"), time_limit(0.5):
        game.step("look around")
    assert not present.alive


def test_without_java_or_the_package_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_scienceworld()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs Java 8 or newer; Debian, Ubuntu: apt install def"):
        Machine()
    engine._constants.cache_clear()
    original = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("scienceworld"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="scienceworld")
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError) as caught:
        Machine()
    assert str(caught.value) == (
        "the environment sciworld needs the package scienceworld; pip install -r requirements-environments.txt"
    )

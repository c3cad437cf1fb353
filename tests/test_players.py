"""Players without a model in all environments: the honest one wins, and no trick earns anything or more than it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from needs import need_alfworld, need_minigrid, need_webshop
from toys import PARAMS, ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params, check_params
from posttrain.environments import Environment, Outcome, read_action, write_action
from posttrain.environments.scripted import expert, first_legal, play_one, random_legal
from posttrain.models.load import load_tokenizer
from posttrain.tasks import Task, get_task

NEEDS: dict[str, Callable[[], None]] = {
    "textcraft": lambda: None,
    "babyai": need_minigrid,
    "webshop": need_webshop,
    "alfworld": need_alfworld,
}
ENVIRONMENTS = tuple(NEEDS)
# field of a row -> its environment
OWN = {"recipes": "textcraft", "level": "babyai", "shop": "webshop", "problem": "alfworld"}
JUNK = ("", "get", "win", "craft", "go to", "reward 1", "Action: inventory", "get -1 x", "9" * 30)

BUY = "click[buy now]"  # of webshop, which ends an episode

Answer = Callable[[Environment, Random], str]  # a whole answer, with its `Action:` or not


def chosen(name: str, **sizes: Any) -> Params:
    """The parameters with a smaller data set of an environment."""
    values = PARAMS.model_dump()
    values["datasets"][name] |= {"train": 15, "val": 5, "test": 5, **sizes}
    return check_params(values | {"dataset": name})


def task_of(row: dict[str, Any]) -> Task:
    """The environment of a row."""
    return get_task(next(name for field, name in OWN.items() if field in row))


@cache
def rows_of(name: str, folder: Path) -> tuple[Params, Task, list[dict[str, Any]]]:
    """An environment and the examples of all splits."""
    NEEDS[name]()
    params, task = chosen(name), get_task(name)
    task.fetch(params, folder / name)
    splits = ("train", "val", "test")
    return params, task, [row for s in splits for row in task.examples(params, s, folder / name)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


@pytest.fixture(params=ENVIRONMENTS)
def game(request: pytest.FixtureRequest, folder: Path) -> tuple[Environment, list[dict[str, Any]]]:
    """An environment, and rows of its data set."""
    params, task, rows = rows_of(request.param, folder)
    assert task.open is not None
    return task.open(params, rows[0]), rows


def earned(environment: Environment, row: dict[str, Any], answer: Answer) -> float:
    """The sum of the rewards of an episode in which a player writes whole answers."""
    random, total = Random(row["id"]), 0.0
    environment.reset(row)
    for _ in range(row["turns"]):
        action = read_action(answer(environment, random), "short")
        if action.text is not None:
            outcome = environment.step(action.text)
            total += outcome.reward
            if outcome.end is not None:
                break
    return total


def test_the_expert_reaches_every_goal_in_its_turns(game: Any) -> None:
    environment, rows = game
    for row in rows:
        end, total, turns = play_one(environment, row, expert)
        assert (end, turns) == ("goal", row["expert_turns"]) and turns <= row["turns"]
        assert 0 < total <= 1


def test_the_expert_finds_its_way_after_random_actions(game: Any) -> None:
    environment, rows = game
    for row in rows:
        wander = iter(range(3))

        def choose(environment: Environment, random: Random, wander: Any = wander) -> str | None:
            if next(wander, None) is None:
                return expert(environment, random)
            return random.choice([each for each in environment.legal() or () if each != BUY])

        long = row | {"turns": 60}
        # Of a door that random actions opened, minigrid's bot does not know.
        assert play_one(environment, long, choose)[0] == "goal" or row["kind"] == "OpenDoor"


@pytest.mark.parametrize(
    "answer",
    [
        lambda environment, random: write_action(random_legal(environment, random) or "", "short"),
        lambda environment, random: write_action(first_legal(environment, random) or "", "short"),
        lambda environment, random: write_action(environment.legal()[-1], "short"),
        lambda environment, random: "Action: get 999 x",
        lambda environment, random: write_action(random.choice(JUNK), "short"),
        lambda environment, random: random.choice(JUNK),
        lambda environment, random: 2 * write_action(environment.expert() or "", "short"),
        lambda environment, random: f"Action: {environment.expert()}\n{environment.expert()}",
    ],
    ids=["random", "first", "last", "get 999 x", "junk", "no form", "two actions", "two lines"],
)
def test_no_player_earns_more_than_the_honest_one(answer: Answer, game: Any) -> None:
    environment, rows = game
    honest = sum(play_one(environment, row, expert)[1] for row in rows)
    totals = [earned(environment, row, answer) for row in rows]
    assert max(totals) <= 1 and sum(totals) < honest
    text = answer(environment, Random(0))
    if read_action(text, "short").text is None or "999" in text:
        assert sum(totals) == 0


def test_repeating_the_expert_s_first_action_earns_no_more_than_the_expert(game: Any) -> None:
    environment, rows = game
    honest = [play_one(environment, row, expert)[1] for row in rows]
    repeated = [play_one(environment, row, lambda *_, row=row: row["expert"])[1] for row in rows]
    assert all(again <= own for again, own in zip(repeated, honest, strict=True))
    assert sum(repeated) < sum(honest)


def test_a_step_after_the_end_raises_until_the_next_reset(game: Any) -> None:
    environment, rows = game
    assert play_one(environment, rows[0], expert)[0] == "goal"
    for action in ("inventory", rows[0]["expert"], "junk"):
        with pytest.raises(RuntimeError, match="ended"):
            environment.step(action)
    assert environment.expert() is None
    assert environment.reset(rows[1]) == rows[1]["question"]


def test_what_cannot_be_done_changes_nothing(game: Any) -> None:
    environment, rows = game
    for row in rows[:5]:
        environment.reset(row)
        before = environment.state_key()
        for action in (*JUNK, f"{row['expert']}, {row['expert']}", f"{row['expert']}\njunk"):
            outcome = environment.step(action)
            assert outcome == Outcome(outcome.observation, valid=False) and outcome.observation
        assert environment.state_key() == before


def test_all_that_is_legal_can_be_done(game: Any) -> None:
    environment, rows = game
    for row in rows[:10]:
        environment.reset(row)
        for action in environment.legal():
            environment.reset(row)
            assert environment.step(action).valid, action
        environment.reset(row)
        assert row["expert"] in environment.legal()


def test_the_same_actions_lead_to_the_same_observations_and_states(game: Any) -> None:
    environment, rows = game

    def told(row: dict[str, Any]) -> list[str]:
        random, found = Random(0), [environment.reset(row), environment.state_key()]
        for _ in range(4):
            outcome = environment.step(random_legal(environment, random) or "")
            found += [outcome.observation, environment.state_key()]
            if outcome.end:
                break
        return found

    for row in rows[:5]:
        first = told(row)
        told(rows[-1])
        assert told(row) == first and len({*first[1::2]}) > 1


def test_200_resets_leave_no_thread_process_or_file_behind(game: Any) -> None:
    environment, rows = game
    here = psutil.Process()
    environment.reset(rows[0])
    before = threading.active_count(), len(here.children()), here.num_fds(), here.num_threads()
    for number in range(200):
        environment.reset(rows[number % len(rows)])
    environment.close()
    after = threading.active_count(), len(here.children()), here.num_fds(), here.num_threads()
    assert after == before


def test_each_game_is_in_one_split_and_differs_from_all_others(game: Any) -> None:
    environment, rows = game
    keys = []
    for row in rows:
        environment.reset(row)
        keys.append(environment.state_key())
    assert len({*keys}) == len(rows) == len({row["question"] for row in rows})
    if "goal" in rows[0]:
        assert len({row["goal"] for row in rows}) == len(rows)


def test_a_prompt_is_short_and_ends_with_the_first_observation(game: Any) -> None:
    _, rows = game
    tokenizer = load_tokenizer(str(ROOT / "pretrain/pocket"), None)
    task = task_of(rows[0])
    for row in rows:
        texts = {v: task.prompt(row, v) for v in ("direct", "reflective", "deliberative")}
        assert len({*texts.values()}) == 3
        assert all(text.endswith(f"\n{row['question']}") for text in texts.values())
        assert all("Answer: Action: <action>\n" in text for text in texts.values())
        assert len(tokenizer(texts["direct"])["input_ids"]) < 256
        assert read_action(task.target(row), "short").text == row["expert"]


def test_measures_and_baselines_know_what_players_reach(game: Any) -> None:
    _, rows = game
    task = task_of(rows[0])
    found = task.baselines(rows)
    assert found["expert"] == 1 and found["first_legal"] < found["expert"]
    # Random actions buy nothing that is wanted, and do hardly any household task.
    assert ("recipes" in rows[0] or "level" in rows[0]) == (found["random_legal"] > 0.1)
    assert found["random_legal"] < 0.6
    assert sum(task.measure(rows)["kinds"].values()) == len(rows)


SEEDED = """
import json, sys
from pathlib import Path
from posttrain.core.params import check_params
from posttrain.tasks import get_task
for name, values in json.load(sys.stdin).items():
    get_task(name).fetch(check_params(values), Path(sys.argv[1]) / name)
"""


def test_the_games_do_not_depend_on_the_order_of_hashes(tmp_path: Path) -> None:
    quick = ("textcraft", "babyai", "webshop")
    for name in quick:
        NEEDS[name]()
    values = {name: chosen(name, train=8, val=1, test=1).model_dump() for name in quick}
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-c", SEEDED, str(tmp_path / seed)]
        subprocess.run(command, input=json.dumps(values), text=True, env=env, check=True)
    for name in quick:
        for split in ("train", "val", "test"):
            one, two = (tmp_path / seed / name / f"{split}.jsonl" for seed in ("1", "2"))
            assert one.read_bytes() == two.read_bytes()
            assert all("question" in row for row in iterate_jsonl(one))


def test_options_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    for name in ("babyai", "webshop"):
        NEEDS[name]()
    for name, options, problem in (
        ("textcraft", {"depth": [3, 2]}, r"options: depth: depth must be \[fewest, most\]|fewest"),
        ("textcraft", {"deep": 3}, "options: deep: unknown parameter"),
        ("textcraft", {"recipes": "nowhere"}, "options.recipes: nowhere is not a folder"),
        ("babyai", {"levels": ["GoToObjj"]}, "is not a level of minigrid; did you mean 'GoToObj'"),
        ("babyai", {"levels": ["KeyInBox"]}, "KeyInBox: minigrid's bot cannot solve it"),
        ("webshop", {"text": "long"}, "options: text: 'long' is not one of"),
        ("webshop", {"size": 29}, "options: size: "),
        ("webshop", {"products": "nowhere"}, "options.products: nowhere is not a folder"),
        (
            "webshop",
            {"tagger": "no_such_model"},
            "'no_such_model' is neither 'textblob' nor a spaCy model",
        ),
    ):
        with pytest.raises(UserError, match=problem):
            get_task(name).fetch(chosen(name, options=options), tmp_path / "out")
        assert not (tmp_path / "out").exists()

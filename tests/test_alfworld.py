"""ALFWorld: the problems that are written, the user's files, the expert's search, and the engine against the package's own.

Tests that play need the packages of requirements-alfworld.txt. With them, and with REQUIRE_ALFWORLD set so that none is
skipped: REQUIRE_ALFWORLD=1 pytest tests/test_alfworld.py tests/test_players.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from needs import need_alfworld
from toys import PARAMS, ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl, write_json
from posttrain.core.params import Params, check_params
from posttrain.environments import Outcome
from posttrain.environments.alfworld import gamefiles
from posttrain.environments.alfworld.engine import NOTHING, Engine, names
from posttrain.environments.alfworld.expert import Expert
from posttrain.environments.alfworld.fetch import fetch
from posttrain.environments.alfworld.game import ALFWorld
from posttrain.environments.alfworld.options import Kind
from posttrain.environments.alfworld.problem import KINDS, LOOK, TREATMENTS, TWO, Game, draw, write
from posttrain.environments.alfworld.rooms import CONTAINS, LAMP, OBJECTS, PROPERTIES, ROOMS
from posttrain.environments.scripted import expert, play_one
from posttrain.tasks import get_task

MUG = Game(
    kind="pick_and_place_simple",
    receptacles=("CoffeeMachine", "Fridge", "CounterTop", "SinkBasin", "SinkBasin"),
    objects=(("Mug", 1), ("Mug", 0), ("Fork", 3)),
    target="Fork",
    place="CounterTop",
    task="put a fork in countertop",
)


def chosen(**options: Any) -> Params:
    values = PARAMS.model_dump()
    values["datasets"]["alfworld"] |= {"train": 6, "val": 1, "test": 1}
    values["datasets"]["alfworld"]["options"] |= options
    return check_params(values | {"dataset": "alfworld"})


# ------------------------------------------------------------------------------- without the packages


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_game_can_be_won_and_is_not_won_at_the_start(kind: str) -> None:
    for seed in range(150):
        receptacles = 5 + seed % 7
        game = draw(Random(seed), kind, receptacles, seed % 9)
        assert len(game.receptacles) == receptacles
        of_target = [number for name, number in game.objects if name == game.target]
        assert len(of_target) == (2 if kind == TWO else 1)
        for name, number in game.objects:
            assert name == LAMP or name in CONTAINS[game.receptacles[number]]
        if kind == LOOK:
            assert game.place == LAMP in dict(game.objects)
        else:
            assert game.place in game.receptacles and game.target in CONTAINS[game.place]
            assert all(game.receptacles[number] != game.place for number in of_target)
        if kind in TREATMENTS:
            needs, _, device, _ = TREATMENTS[kind]
            assert game.target in PROPERTIES[needs]
            assert device in game.receptacles and device != game.place


def test_a_problem_declares_what_it_names_and_is_closed() -> None:
    for number, kind in enumerate(KINDS):
        text = write(draw(Random(number), kind, 8, 6))
        assert text.count("(") == text.count(")")
        declared = {*re.findall(r"^(\S+) - \w+$", text, re.M)}
        initial, _, goal = text.partition("(:goal")
        used = {
            name
            for fact in re.findall(r"^\((\w+ .*)\)$", initial, re.M)[1:]
            for name in fact.split()[1:]
        }
        used |= {*re.findall(r"\w+Type", goal)} - {"objectType", "receptacleType"}
        assert (
            used <= declared - {"agent1"} | {"agent1"} and {"KnifeType", "FridgeType"} <= declared
        )


def test_a_written_problem_by_hand() -> None:
    text = write(MUG)
    for fact in (
        "(atLocation agent1 loc_bar_00)",
        "(receptacleAtLocation Fridge_bar_01 loc_bar_02)",
        "(openable Fridge_bar_01)",
        "(receptacleType Sink_bar_02_bar_SinkBasin SinkBasinType)",
        "(inReceptacle Mug_bar_02 CoffeeMachine_bar_01)",
        "(objectAtLocation Fork_bar_01 loc_bar_04)",
        "(canContain FridgeType MugType)",
        "(objectType ?o ForkType) (receptacleType ?r CounterTopType) (inReceptacle ?o ?r)",
    ):
        assert fact in text
    assert "(openable CounterTop" not in text and "(canContain FridgeType ForkType)" not in text


def test_the_same_seed_writes_the_same_problem_whatever_the_order_of_hashes() -> None:
    code = (
        "from random import Random\n"
        "from posttrain.environments.alfworld.problem import KINDS, draw, write\n"
        "for kind in KINDS: print(write(draw(Random(7), kind, 9, 9)))\n"
    )
    one, two = _printed(code)
    assert one == two and one.count(b"(:goal") == len(KINDS)


def _printed(code: str) -> list[bytes]:
    """What a program prints under two seeds of Python's hashes."""
    found = []
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-c", code]
        found.append(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)
    return found


def test_every_kind_and_place_of_a_room_is_known() -> None:
    assert [*KINDS] == [*Kind.__args__]
    for room, (needed, possible) in ROOMS.items():
        assert {*needed, *possible} <= CONTAINS.keys() and len(needed) + len(possible) >= 11
        for kind in OBJECTS[room]:
            assert any(kind in CONTAINS[place] for place in needed)


def test_things_are_named_as_alfworld_names_them() -> None:
    identifiers = [
        "mug_bar__plus_01",
        "mug_bar__minus_00",
        "sink_bar_1_bar_sinkbasin",
        "sink_bar_2",
    ]
    assert names(identifiers) == {
        "mug_bar__minus_00": "mug 2",
        "mug_bar__plus_01": "mug 1",
        "sink_bar_1_bar_sinkbasin": "sinkbasin 1",
        "sink_bar_2": "sink 1",
    }
    assert names(["agent1"]) == {"agent1": "agent1 "}


def test_the_expert_looks_for_what_it_has_not_seen_and_then_follows_the_plan() -> None:
    plan = ["go to shelf 1", "take mug 1 from shelf 1", "go to desk 1", "move mug 1 to desk 1"]
    ways = [f"go to {name}" for name in ("bed 1", "drawer 1", "shelf 1")]
    found = Expert(["bed 1", "drawer 1", "shelf 1", "desk 1"], searches=True)
    assert found.choose(plan, ways) == "go to bed 1"
    found.read("You arrive at bed 1. On the bed 1, you see a pen 1, and a mug 2.")
    assert found.choose(plan, ways) == "go to drawer 1"
    assert found.choose(plan, ways[2:]) == "examine drawer 1"  # it is at the place of the bed
    found.read("You arrive at drawer 1. The drawer 1 is closed.")
    assert found.choose(plan, ways) == "open drawer 1"
    found.read("You open the drawer 1. The drawer 1 is open. In it, you see nothing.")
    assert found.choose(plan, ways) == "go to shelf 1"
    found.read("You arrive at shelf 1. On the shelf 1, you see a mug 1.")
    assert found.choose(plan[1:], ways) == plan[1]
    assert found.choose(plan[2:], ways) == plan[2] and found.choose([], ways) is None
    assert Expert(["bed 1"], searches=False).choose(plan, ways) == plan[0]


def stored(folder: Path, task: str = MUG.task, **changed: Any) -> Path:
    """A game in a folder as alfworld's data has it."""
    grammar = f'grammar :: """ {{"task": [{{"rhs": "Your task is to: {task}."}}]}} """;'
    folder.mkdir(parents=True)
    game = {"pddl_domain": "", "grammar": grammar, "pddl_problem": write(MUG)}
    write_json(folder / "game.tw-pddl", game | changed)
    write_json(folder / "traj_data.json", {"task_type": MUG.kind})
    return folder


def test_games_of_a_folder_are_found_and_read(tmp_path: Path) -> None:
    for number in range(4):
        stored(tmp_path / f"train/pick-{number}/trial")
    stored(tmp_path / "train/pick_movable-1/trial")
    other = stored(tmp_path / "train/look-1/trial")
    write_json(other / "traj_data.json", {"task_type": LOOK})
    counts = {"train": 3}
    found = gamefiles.find(str(tmp_path), "KEY", [MUG.kind], counts, 0)
    assert found == gamefiles.find(str(tmp_path), "KEY", [MUG.kind], counts, 0)
    assert len({*found["train"]}) == 3 and not [p for p in found["train"] if "movable" in str(p)]
    game = gamefiles.read(found["train"][0])
    assert (game.name, game.kind, game.task) == ("trial", MUG.kind, MUG.task)
    assert game.problem == write(MUG).strip()
    with pytest.raises(UserError, match="valid_seen: 1 games asked for, and it has 0"):
        gamefiles.find(str(tmp_path), "KEY", [MUG.kind], {"val": 1}, 0)


@pytest.mark.parametrize(
    ("task", "changed", "problem"),
    [
        ("put {o.name} away", {}, "no plain sentence"),
        ("put a #look.feedback# away", {}, "no plain sentence"),
        ("put", {"grammar": None}, "not a game of alfworld"),
        ("put", {"pddl_problem": 3}, "not a game of alfworld"),
        ("put", {"grammar": "nothing"}, "no plain sentence"),
    ],
)
def test_a_file_that_is_no_game_is_one_line(
    task: str, changed: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"game.tw-pddl: .*{problem}"):
        gamefiles.read(stored(tmp_path / "trial", task, **changed))


def test_a_game_of_another_type_of_task_is_one_line(tmp_path: Path) -> None:
    folder = stored(tmp_path / "trial")
    write_json(folder / "traj_data.json", {"task_type": "pick_and_dance"})
    with pytest.raises(UserError, match="task_type 'pick_and_dance' is not one of pick_and_place"):
        gamefiles.read(folder)


def test_options_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    for options, problem in (
        ({"kinds": ["pick"]}, "options: kinds"),
        ({"receptacles": 3}, "options: receptacles"),
        ({"expert": "handcoded"}, "options: expert"),
    ):
        with pytest.raises(UserError, match=problem):
            get_task("alfworld").fetch(chosen(**options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_packages_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "alfworld" else original(name)
    )
    with pytest.raises(UserError) as caught:
        get_task("alfworld").fetch(chosen(), tmp_path / "out")
    assert str(caught.value) == (
        "the environment alfworld needs the package alfworld; pip install -r requirements-alfworld.txt"
    )


# ------------------------------------------------------------------------------- with the packages


@pytest.fixture(scope="module")
def engine() -> Engine:
    need_alfworld()
    return Engine()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """alfworld itself, whose import makes the folder that ALFWORLD_DATA names."""
    need_alfworld()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    return pytest.importorskip("alfworld.gen.constants")


def test_kinds_places_and_properties_are_the_package_s(package: Any) -> None:
    for place, kinds in CONTAINS.items():
        assert kinds <= package.VAL_RECEPTACLE_OBJECTS[place], place
    actions = package.VAL_ACTION_OBJECTS
    for ours, theirs in (
        ("cleanable", "Cleanable"),
        ("heatable", "Heatable"),
        ("coolable", "Coolable"),
        ("sliceable", "Sliceable"),
    ):
        everything = {kind for kinds in OBJECTS.values() for kind in kinds}
        assert PROPERTIES[ours] == actions[theirs] & everything
    assert PROPERTIES["isReceptacleObject"] <= {*package.MOVABLE_RECEPTACLES}


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_says_what_the_package_s_own_says(
    kind: str, engine: Engine, package: Any
) -> None:
    """Names in a list are in another order, as in the package it is that of Python's sets."""
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld import EnvInfos
    from textworld.envs.pddl.pddl import PddlEnv

    game, random = draw(Random(3), kind, 8, 6), Random(0)
    logic = {
        name: (Path(package.__file__).parent.parent / "data" / file).read_text()
        for name, file in (("pddl_domain", "alfred.pddl"), ("grammar", "alfred.twl2"))
    }
    logic["grammar"] = logic["grammar"].replace("UNKNOWN GOAL", game.task)
    theirs = AlfredDemangler(PddlEnv(EnvInfos(won=True, policy_commands=True)))
    theirs.load({**logic, "pddl_problem": write(game)})
    state = theirs.reset()

    def words(text: str) -> Counter[str]:
        return Counter(re.findall(r"[\w']+", re.sub(r"\b(and|a) ", "", text)))

    welcome, _, first = state.feedback.partition("\n\n")
    assert welcome == "-= Welcome to TextWorld, ALFRED! =-"
    assert words(engine.begin(write(game), game.task)) == words(first)
    for _ in range(5):
        assert engine.commands() == state["admissible_commands"]
        command = random.choice(engine.commands())
        state, _, _ = theirs.step(command)
        assert words(engine.do(command) or NOTHING) == words(state.feedback)
    for command in [*engine.plan()]:
        state, score, done = theirs.step(command)
        assert words(engine.do(command) or NOTHING) == words(state.feedback)
        assert engine.won() == state["won"] == done == bool(score)
    assert engine.won()
    engine.close()
    engine.__init__()  # type: ignore[misc]


def test_generated_games_are_new_and_solved_and_the_planner_is_no_slower(tmp_path: Path) -> None:
    need_alfworld()
    rows = {}
    for way in ("search", "planner"):
        fetch(chosen(expert=way), tmp_path / way)
        rows[way] = read_jsonl(tmp_path / way / "train.jsonl")
    assert [row["kind"] for row in rows["search"]] == [*KINDS]
    for searched, planned in zip(rows["search"], rows["planner"], strict=True):
        assert searched["problem"] == planned["problem"]
        assert searched["question"] == planned["question"]
        assert searched["expert_turns"] >= planned["expert_turns"]


def test_observations_do_not_depend_on_the_order_of_hashes() -> None:
    need_alfworld()
    code = (
        "from random import Random\n"
        "from posttrain.environments.alfworld.engine import Engine\n"
        "from posttrain.environments.alfworld.problem import KINDS, draw, write\n"
        "engine = Engine()\n"
        "for kind in KINDS:\n"
        "    game = draw(Random(7), kind, 9, 15)\n"
        "    print(engine.begin(write(game), game.task))\n"
        "    for command in engine.plan(): print(command, engine.do(command))\n"
    )
    assert len({*_printed(code)}) == 1


def test_the_reward_is_paid_when_the_task_is_done_and_what_cannot_be_done_is_not_valid() -> None:
    need_alfworld()
    game = ALFWorld()
    game.begin(write(MUG), MUG.task)
    assert game.step("take fork 1 from sinkbasin 1") == Outcome(NOTHING, valid=False)
    assert (
        game.step("put fork 1 in/on countertop 1").observation == NOTHING
    )  # the form of version 0.3
    assert game.step("go to sinkbasin 1").valid or game.step("go to sinkbasin 2").valid
    outcome = Outcome("")
    while outcome.end is None:
        outcome = game.step(game.expert() or "")
    assert outcome == Outcome("You move the fork 1 to the countertop 1.", 1.0, "goal")
    with pytest.raises(RuntimeError, match="ended"):
        game.step("look")
    game.close()


def test_a_row_of_another_version_of_the_packages_is_one_line() -> None:
    need_alfworld()
    row = {"id": "t-0", "problem": write(MUG), "task": MUG.task, "question": "something else"}
    with pytest.raises(UserError, match="t-0: the packages begin this game with other words"):
        ALFWorld().reset(row)


def test_stored_games_become_rows_with_the_whole_game(tmp_path: Path) -> None:
    need_alfworld()
    for number, name in enumerate(("train", "valid_seen", "valid_unseen")):
        game = draw(Random(number), MUG.kind, 6, 3)
        stored(tmp_path / "games" / name / "trial", game.task, pddl_problem=write(game))
    values = chosen(games=str(tmp_path / "games"), kinds=[MUG.kind]).model_dump()
    values["datasets"]["alfworld"]["train"] = 1
    params = check_params(values)
    fetch(params, tmp_path / "out")
    (tmp_path / "games").rename(tmp_path / "gone")
    for split in ("train", "val", "test"):
        (row,) = get_task("alfworld").examples(params, split, tmp_path / "out")
        end, total, turns = play_one(ALFWorld(), row, expert)
        assert (end, total, turns) == ("goal", 1.0, row["expert_turns"])


def test_a_stored_problem_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    need_alfworld()
    for name in ("train", "valid_seen", "valid_unseen"):
        stored(tmp_path / "games" / name / "trial", pddl_problem="(define (problem game)")
    values = chosen(games=str(tmp_path / "games"), kinds=[MUG.kind]).model_dump()
    values["datasets"]["alfworld"]["train"] = 1
    with pytest.raises(
        UserError, match=r"trial/game.tw-pddl: not a problem of alfworld that can be solved"
    ):
        fetch(check_params(values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_public_game_is_played_to_the_end(alfworld_dir: Path, tmp_path: Path) -> None:
    """Of the repository alfworld/alfworld at commit 7c7aabca, debug/multi-agent: three agents, of whom one stays."""
    need_alfworld()
    game = json.loads((alfworld_dir / "game.tw-pddl").read_text())
    problem = re.sub(r".*\b(bob|charlie)\b.*\n", "", game["pddl_problem"])
    folder = stored(
        tmp_path / "trial", **game | {"pddl_problem": problem.replace("alice", "agent1")}
    )
    write_json(folder / "traj_data.json", {"task_type": "pick_heat_then_place_in_recep"})
    read = gamefiles.read(folder)
    assert read.task == "put a hot potato in sinkbasin"
    planner = ALFWorld(searches=False)
    row = {"id": "public", "turns": 50, "problem": read.problem, "task": read.task}
    row["question"] = planner.begin(read.problem, read.task)
    assert play_one(planner, row, expert) == ("goal", 1.0, 6)
    end, total, turns = play_one(ALFWorld(), row, expert)
    assert (end, total) == ("goal", 1.0) and 6 < turns <= 50

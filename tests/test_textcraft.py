"""The rules of TextCraft on recipes small enough to read, its planner, its generator, and a data pack's folder."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import PARAMS

from posttrain.core.errors import UserError
from posttrain.core.inputs import hash_inputs
from posttrain.core.params import Params, check_params
from posttrain.environments.textcraft.datapack import goals, page_of, read_world
from posttrain.environments.textcraft.game import TextCraft
from posttrain.environments.textcraft.planner import Planner
from posttrain.environments.textcraft.recipes import Recipe, World, page, to_row
from posttrain.environments.textcraft.sample import generate_world
from posttrain.tasks import get_task

# Two planks and two sticks make a ladder; planks are of oak or of birch; four sticks come from two planks of one kind.
WORLD = World(
    (
        Recipe("oak plank", 4, ((1, "oak log"),)),
        Recipe("birch plank", 4, ((1, "birch log"),)),
        Recipe("stick", 4, ((2, "any plank"),)),
        Recipe("ladder", 3, ((2, "any plank"), (2, "stick"))),
        Recipe("torch", 4, ((1, "coal"), (1, "stick"))),
    ),
    {"plank": ["oak plank", "birch plank"]},
    frozenset({"oak log", "birch log", "coal"}),
)


def played(*actions: str, goal: str = "ladder") -> list[tuple[str, float, str | None, bool]]:
    """What each action did, from the start."""
    game = TextCraft()
    game.reset({"goal": goal, **to_row(WORLD)})
    done = [game.step(action) for action in actions]
    return [(each.observation, each.reward, each.end, each.valid) for each in done]


def test_the_goal_is_paid_when_it_is_crafted_and_nothing_before() -> None:
    assert played(
        "get 1 oak log",
        "craft 4 oak plank using 1 oak log",
        "craft 4 stick using 2 oak plank",
        "inventory",
        "craft 3 ladder using 2 stick, 2 oak plank",
    ) == [
        ("Got 1 oak log", 0.0, None, True),
        ("Crafted 4 oak plank", 0.0, None, True),
        ("Crafted 4 stick", 0.0, None, True),
        ("Inventory: 2 oak plank, 4 stick", 0.0, None, True),
        ("Crafted 3 ladder", 1.0, "goal", True),
    ]


@pytest.mark.parametrize(
    ("actions", "observation"),
    [
        (("get 1 ladder",), "Could not find it"),
        (("get 1 plank",), "Could not find it"),
        (("get 1 any plank",), "Could not find it"),
        (("get 1 diamond",), "Could not find it"),
        (("get 0 coal",), "Not a command"),
        (("get 1000 coal",), "Not a command"),
        (("craft 4 torch using 1 coal, 1 stick",), "Not enough coal"),
        (("get 9 coal", "craft 4 torch using 2 coal, 2 stick"), "No such recipe"),
        (("get 9 coal", "craft 4 torch using 1 coal"), "No such recipe"),
        (("craft 4 stick using 1 oak plank, 1 birch plank",), "No such recipe"),
        (("craft 4 stick using 2 any plank",), "No such recipe"),
        (("craft 1 coal using 1 coal",), "No such recipe"),
        (("get 1 oak log", "craft oak plank using 1 oak log, 1 oak log"), "No such recipe"),
        (("craft 4 oak plank using oak log",), "Not a command"),
        (("Get 1 coal",), "Not a command"),
    ],
)
def test_what_cannot_be_done_is_said(actions: tuple[str, ...], observation: str) -> None:
    assert played(*actions)[-1] == (observation, 0.0, None, False)


def test_base_items_are_free_and_999_of_them_buy_nothing() -> None:
    found = played(*["get 999 oak log"] * 5, "get 999 coal", "inventory")
    assert found[-1][0] == "Inventory: 999 coal, 4995 oak log"
    assert sum(reward for _, reward, _, _ in found) == 0


def test_the_number_before_a_crafted_item_is_the_recipes_own() -> None:
    for number in ("", "4 ", "99 "):
        *_, last = played("get 1 oak log", f"craft {number}oak plank using 1 oak log")
        assert last[0] == "Crafted 4 oak plank"


def test_the_page_shows_each_recipe_on_a_line_and_the_goal() -> None:
    assert page(WORLD, "torch").splitlines()[2:] == [
        "craft 4 stick using 2 any plank",
        "craft 3 ladder using 2 any plank, 2 stick",
        "craft 4 torch using 1 coal, 1 stick",
        "Goal: craft torch",
    ]


def test_a_plan_uses_what_is_there() -> None:
    planner = Planner(WORLD)
    assert [*planner.plan("ladder", {})] == [
        "get 1 oak log",
        "craft 4 oak plank using 1 oak log",
        "craft 4 stick using 2 oak plank",
        "craft 3 ladder using 2 oak plank, 2 stick",
    ]
    assert [*planner.plan("ladder", {"birch plank": 2, "stick": 2})] == [
        "craft 3 ladder using 2 birch plank, 2 stick"
    ]
    assert planner.depth("ladder") == 3 and planner.depth("any plank") == 1
    assert len(planner.needed("ladder")) == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 12))
def test_the_expert_crafts_the_goal_from_any_inventory(seed: int, depth: int, wander: int) -> None:
    random = Random(seed)
    world = generate_world(random, "goal", depth, 3)
    planner, game = Planner(world), TextCraft()
    assert planner.depth("goal") == depth and planner.makes("goal")
    game.reset({"goal": "goal", **to_row(world)})
    for _ in range(wander):
        if game.step(random.choice(game.legal())).end:
            return
    shortest = len([*planner.plan("goal", {})])
    for _ in range(shortest):
        outcome = game.step(str(game.expert()))
        assert outcome.valid
        if outcome.end == "goal":
            return
    pytest.fail("no goal in as many turns as from nothing")


# ------------------------------------------------------------------------------- a data pack's folder

PACK: dict[str, Any] = {
    "oak_planks": {
        "type": "minecraft:crafting_shapeless",
        "group": "planks",
        "ingredients": [{"tag": "minecraft:oak_logs"}],
        "result": {"item": "minecraft:oak_planks", "count": 4},
    },
    "stick": {
        "type": "minecraft:crafting_shaped",
        "pattern": ["#", "#"],
        "key": {"#": {"tag": "minecraft:planks"}},
        "result": {"item": "minecraft:stick", "count": 4},
    },
    "torch": {
        "type": "minecraft:crafting_shaped",
        "pattern": ["X", "#"],
        "key": {
            "#": {"item": "minecraft:stick"},
            "X": [{"item": "minecraft:coal"}, {"item": "minecraft:charcoal"}],
        },
        "result": {"item": "minecraft:torch", "count": 4},
    },
    "gold_ingot_from_nuggets": {
        "type": "minecraft:crafting_shapeless",
        "ingredients": [{"item": "minecraft:gold_nugget"}] * 9,
        "result": "minecraft:gold_ingot",
    },
    "gold_nugget": {
        "type": "minecraft:crafting_shapeless",
        "ingredients": [{"item": "minecraft:gold_ingot"}],
        "result": {"item": "minecraft:gold_nugget", "count": 9},
    },
    "iron_ingot": {
        "type": "minecraft:crafting_shapeless",
        "ingredients": [{"item": "minecraft:iron_block"}],
        "result": {"item": "minecraft:iron_ingot", "count": 9},
    },
    "glass": {"type": "minecraft:smelting", "ingredient": {"item": "minecraft:sand"}},
}


def write_pack(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.json").write_text(json.dumps(PACK[name]))
    return folder


def stored(folder: Path, **sizes: int) -> Params:
    values = PARAMS.model_dump()
    entry = values["datasets"]["textcraft"]
    entry |= {"train": 2, "val": 1, "test": 1, **sizes}
    entry["options"]["recipes"] = str(folder)
    return check_params(values | {"dataset": "textcraft"})


def test_a_data_packs_recipes_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    one = read_world(str(write_pack(tmp_path / "one", [*PACK])), "recipes")
    two = read_world(str(write_pack(tmp_path / "two", [*reversed(PACK)])), "recipes")
    assert one == two
    assert [str(recipe) for recipe in one.recipes] == [
        "craft 1 gold ingot using 9 gold nugget",
        "craft 4 oak planks using 1 oak logs",
        "craft 4 stick using 2 any planks",
        "craft 4 torch using 1 stick, 1 coal",
    ]
    assert one.base == {"gold nugget", "oak logs", "coal"}
    assert goals(one, 1, 9) == [("gold ingot", 1), ("oak planks", 1), ("stick", 2), ("torch", 3)]
    shown = page_of(one, "stick", 5, Random(0))
    assert {recipe.item for recipe in shown.recipes} == {"stick", "oak planks"}


def test_games_of_a_folder_are_solved_and_their_files_are_inputs(tmp_path: Path) -> None:
    params, task = stored(write_pack(tmp_path / "pack", [*PACK])), get_task("textcraft")
    task.fetch(params, tmp_path / "out")
    rows = [
        row
        for split in ("train", "val", "test")
        for row in task.examples(params, split, tmp_path / "out")
    ]
    assert sorted(row["goal"] for row in rows) == ["gold ingot", "oak planks", "stick", "torch"]
    assert task.baselines(rows)["expert"] == 1
    before = hash_inputs(params)["dataset"]
    assert before.keys() == {f"recipes/{name}.json" for name in PACK}
    (tmp_path / "pack/torch.json").write_text("{}")
    assert hash_inputs(params)["dataset"] != before
    with pytest.raises(UserError, match=r"torch\.json: not a recipe of a data pack"):
        task.fetch(params, tmp_path / "again")


def test_more_games_than_a_folder_has_goals_are_one_line(tmp_path: Path) -> None:
    params = stored(write_pack(tmp_path / "pack", [*PACK]), train=9)
    with pytest.raises(UserError, match=r"ask for 11 games, and .* has 4 goals of depth 1 to 4"):
        get_task("textcraft").fetch(params, tmp_path / "out")
    assert not (tmp_path / "out").exists()

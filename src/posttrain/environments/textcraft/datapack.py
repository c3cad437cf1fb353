"""Recipes of a folder in the form of a Minecraft data pack, such as the one that AgentGym plays with.

The recipes are a game maker's data, so none are kept here. Read are shaped and shapeless recipes, one in each `.json`
file of the folder, in the order of the files' names:

    ingredients    an item, a tag (a group), or a list of alternatives, of which the first is taken
    group          of the item that a recipe makes: a tag of that name takes it; one without such items is a base item
    left out       recipes of other types, recipes from one block alone (`iron_ingot_from_iron_block`), and each recipe
                   whose item is needed for one of its own ingredients, so that there are no circles
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.inputs import named_folder
from posttrain.environments.textcraft.planner import Planner
from posttrain.environments.textcraft.recipes import ANY, Recipe, World

_NAMESPACE = "minecraft:"


def read_world(path: str, key: str) -> World:
    """The world of a folder that `key` of params.yaml names; `UserError` names a file that is no recipe."""
    folder = named_folder(path, key)
    files = sorted(folder.glob("*.json"), key=lambda file: file.name)
    if not files:
        raise UserError(f"{key}: {path} has no .json files")
    recipes: list[Recipe] = []
    groups: dict[str, list[str]] = defaultdict(list)
    for file in files:
        values = read_json(file)
        try:
            recipe, group = _recipe(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{file}: not a recipe of a data pack ({error!r})") from error
        if recipe is None or _from_a_block(recipe):
            continue
        recipes.append(recipe)
        if group not in (None, recipe.item) and recipe.item not in groups[str(group)]:
            groups[str(group)].append(recipe.item)
    return _without_circles(recipes, groups)


def _recipe(values: Any) -> tuple[Recipe | None, str | None]:
    """The recipe of a file and the group of its item; None if it is of another type."""
    kind = values["type"].removeprefix(_NAMESPACE)
    numbers = Counter[str]()
    if kind == "crafting_shaped":
        pattern = "".join(values["pattern"])
        for letter, part in values["key"].items():
            numbers[_ingredient(part)] += pattern.count(letter)
    elif kind == "crafting_shapeless":
        numbers.update(_ingredient(part) for part in values["ingredients"])
    else:
        return None, None
    result = values["result"]
    if isinstance(result, str):
        result = {"item": result}
    item = _name(result["item"] if "item" in result else result["id"])
    ingredients = tuple((number, name) for name, number in numbers.items())
    if not ingredients or min(numbers.values()) < 1:
        raise ValueError("an ingredient without a place")
    group = values.get("group")
    return Recipe(item, int(result.get("count", 1)), ingredients), group and _name(group)


def _ingredient(part: Any) -> str:
    if isinstance(part, list):
        part = part[0]
    if isinstance(part, str):
        return ANY + _name(part[1:]) if part.startswith("#") else _name(part)
    return _name(part["item"]) if "item" in part else ANY + _name(part["tag"])


def _name(identifier: str) -> str:
    return identifier.removeprefix(_NAMESPACE).replace("_", " ")


def _from_a_block(recipe: Recipe) -> bool:
    return len(recipe.ingredients) == 1 and recipe.ingredients[0][1].endswith(" block")


def _without_circles(recipes: list[Recipe], groups: Mapping[str, list[str]]) -> World:
    """The world of the recipes, less each that closes a circle with those before it."""

    def plain(name: str) -> str:
        """A tag without members is an item."""
        group = name.removeprefix(ANY)
        return name if name == group or groups.get(group) else group

    needs: dict[str, set[str]] = defaultdict(set)
    for group, members in groups.items():
        needs[ANY + group] = {*members}

    def reaches(name: str, item: str) -> bool:
        seen, ahead = set(), [name]
        while ahead:
            now = ahead.pop()
            if now == item:
                return True
            if now not in seen:
                seen.add(now)
                ahead += needs[now]
        return False

    kept = []
    for recipe in recipes:
        ingredients = tuple((number, plain(name)) for number, name in recipe.ingredients)
        if not any(reaches(name, recipe.item) for _, name in ingredients):
            kept.append(Recipe(recipe.item, recipe.count, ingredients))
            needs[recipe.item] |= {name for _, name in ingredients}
    made = {recipe.item for recipe in kept}
    named = {name for recipe in kept for _, name in recipe.ingredients}
    items = {name for name in named if not name.startswith(ANY)} | {
        item for members in groups.values() for item in members
    }
    return World(tuple(kept), dict(groups), frozenset(items - made))


def goals(world: World, fewest: int, most: int) -> list[tuple[str, int]]:
    """The items that can be crafted, with their depth, if that is in the range; sorted by name."""
    planner = Planner(world)
    crafted = sorted({recipe.item for recipe in world.recipes})
    depths = [(item, planner.depth(item)) for item in crafted if planner.makes(item)]
    return [(item, depth) for item, depth in depths if fewest <= depth <= most]


def page_of(world: World, goal: str, distractors: int, random: Random) -> World:
    """The part of the world that a game shows: what the goal may need, and recipes that use some of the same items."""
    planner = Planner(world)
    needed = planner.needed(goal)
    names = {name for recipe in needed for _, name in recipe.ingredients}
    others = [
        recipe
        for recipe in world.recipes
        if recipe not in needed and names & {name for _, name in recipe.ingredients}
    ]
    shown = [recipe for recipe in world.recipes if recipe in needed]
    shown += random.sample(others, min(distractors, len(others)))
    random.shuffle(shown)
    return _part(world, shown)


def _part(world: World, shown: list[Recipe]) -> World:
    groups = {
        name.removeprefix(ANY): world.groups[name.removeprefix(ANY)]
        for recipe in shown
        for _, name in recipe.ingredients
        if name.startswith(ANY)
    }
    items = set(_items(world, shown))
    return World(tuple(shown), groups, world.base & items)


def _items(world: World, recipes: list[Recipe]) -> Iterator[str]:
    for recipe in recipes:
        for _, name in recipe.ingredients:
            yield from world.members(name)

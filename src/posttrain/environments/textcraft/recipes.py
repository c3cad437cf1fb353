"""Recipes, and the page of a game that shows them.

An ingredient is a number of one item, or of any one member of a group, written `2 any planks`: a recipe that asks for it
takes two oak planks or two birch planks, but not one of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANY = "any "

Amount = tuple[int, str]  # number, item or `any group`


@dataclass(frozen=True, slots=True)
class Recipe:
    """Crafting once turns `ingredients` into `count` of `item`."""

    item: str
    count: int
    ingredients: tuple[Amount, ...]

    def __str__(self) -> str:
        return craft(self.item, self.count, self.ingredients)


@dataclass(frozen=True)
class World:
    """What can be had: `base` items are free, the others come by recipes. groups: the members of each, by name."""

    recipes: tuple[Recipe, ...]
    groups: Mapping[str, Sequence[str]]
    base: frozenset[str]

    def members(self, ingredient: str) -> Sequence[str]:
        """The items that an ingredient may be: itself, or the members of its group."""
        if ingredient.startswith(ANY):
            return self.groups[ingredient.removeprefix(ANY)]
        return (ingredient,)

    def recipes_of(self, item: str) -> list[Recipe]:
        """The recipes that make an item, in the order of the page."""
        return [recipe for recipe in self.recipes if recipe.item == item]


def craft(item: str, count: int, ingredients: Sequence[Amount]) -> str:
    """The command that crafts."""
    return f"craft {count} {item} using {', '.join(f'{n} {name}' for n, name in ingredients)}"


def page(world: World, goal: str) -> str:
    """The first observation: a line for each recipe, and the goal."""
    return "\n".join([*map(str, world.recipes), f"Goal: craft {goal}"])


def to_row(world: World) -> dict[str, Any]:
    """The world as JSON."""
    return {
        "recipes": [[recipe.item, recipe.count, recipe.ingredients] for recipe in world.recipes],
        "groups": {name: [*members] for name, members in sorted(world.groups.items())},
        "base": sorted(world.base),
    }


def from_row(row: Mapping[str, Any]) -> World:
    """The world that `to_row` wrote."""
    recipes = (
        Recipe(item, count, tuple((number, name) for number, name in ingredients))
        for item, count, ingredients in row["recipes"]
    )
    return World(tuple(recipes), row["groups"], frozenset(row["base"]))

"""The engine of TextCraft's published rules.

    get N ITEM                           N of a base item, which is free; an item that a recipe makes cannot be got
    craft N ITEM using N ITEM, N ITEM    a recipe of the page, once, with the page's numbers; N ITEM is what it makes
    inventory                            what there is

The reward is 1 when the goal item is crafted, which ends the episode, and 0 before. What cannot be done is an observation
that says so. Base items are free by the rules, so `get 999 oak log` is allowed, and of no use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import product
from typing import Any

from posttrain.core.params import Params
from posttrain.environments import Environment, Outcome
from posttrain.environments.textcraft.planner import Planner
from posttrain.environments.textcraft.recipes import (
    Amount,
    Recipe,
    World,
    craft,
    from_row,
    page,
)
from posttrain.tasks import Example

_GET = re.compile(r"get ([1-9][0-9]{0,2}) (.+)")
_CRAFT = re.compile(r"craft (?:[0-9]{1,3} )?(.+?) using (.+)")
_AMOUNT = re.compile(r"([1-9][0-9]{0,2}) (.+)")


class TextCraft:
    """One game at a time (`posttrain.environments.Environment`)."""

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the game of a row with an empty inventory."""
        self._world: World = from_row(row)
        self._planner = Planner(self._world)
        self._goal: str = row["goal"]
        self._inventory = Counter[str]()
        self._ended = False
        return page(self._world, self._goal)

    def step(self, action: str) -> Outcome:
        """Carry out a command."""
        if self._ended:
            raise RuntimeError("the episode has ended")
        action = action.strip()
        if action == "inventory":
            held = ", ".join(f"{number} {item}" for item, number in self._held())
            return Outcome(f"Inventory: {held or 'nothing'}")
        if match := _GET.fullmatch(action):
            return self._get(int(match[1]), match[2])
        if match := _CRAFT.fullmatch(action):
            amounts = [_AMOUNT.fullmatch(part.strip()) for part in match[2].split(",")]
            used = [(int(found[1]), found[2]) for found in amounts if found]
            if len(used) == len(amounts):
                return self._craft(match[1], used)
        return Outcome("Not a command", valid=False)

    def legal(self) -> list[str]:
        """What can be crafted, the amounts of base items that recipes ask for, and `inventory`."""
        found: dict[str, None] = {}
        for recipe in self._world.recipes:
            for used in self._ways(recipe):
                if self._lacking(used) is None:
                    found[craft(recipe.item, recipe.count, used)] = None
        for recipe in self._world.recipes:
            for used in self._ways(recipe):
                for number, item in used:
                    if item in self._world.base:
                        found[f"get {number} {item}"] = None
        return [*found, "inventory"]

    def expert(self) -> str | None:
        """The first action of a plan from the present inventory."""
        return None if self._ended else next(self._planner.plan(self._goal, self._inventory))

    def state_key(self) -> str:
        """The page and the inventory."""
        held = ", ".join(f"{number} {item}" for item, number in self._held())
        return f"{page(self._world, self._goal)}\n{held}"

    def close(self) -> None:
        """Nothing is held."""

    def _get(self, number: int, item: str) -> Outcome:
        if item not in self._world.base:
            return Outcome("Could not find it", valid=False)
        self._inventory[item] += number
        return Outcome(f"Got {number} {item}")

    def _craft(self, item: str, used: list[Amount]) -> Outcome:
        recipe = next((r for r in self._world.recipes_of(item) if self._fits(r, used)), None)
        if recipe is None:
            return Outcome("No such recipe", valid=False)
        lacking = self._lacking(used)
        if lacking is not None:
            return Outcome(f"Not enough {lacking}", valid=False)
        for number, name in used:
            self._inventory[name] -= number
        self._inventory[item] += recipe.count
        self._ended = item == self._goal
        made = f"Crafted {recipe.count} {item}"
        return Outcome(made, 1.0, "goal") if self._ended else Outcome(made)

    def _fits(self, recipe: Recipe, used: list[Amount]) -> bool:
        """Whether the amounts are the recipe's ingredients, in any order; those of a group are matched last."""
        left = [*used]
        for number, name in sorted(recipe.ingredients, key=lambda part: part[1].startswith("any ")):
            members = self._world.members(name)
            found = next((each for each in left if each[0] == number and each[1] in members), None)
            if found is None:
                return False
            left.remove(found)
        return not left

    def _lacking(self, used: list[Amount]) -> str | None:
        """An item of which there is not enough for all amounts together."""
        wanted = Counter[str]()
        for number, item in used:
            wanted[item] += number
        return next((item for item in wanted if self._inventory[item] < wanted[item]), None)

    def _ways(self, recipe: Recipe) -> list[list[Amount]]:
        """The recipe's ingredients with each choice of members of its groups."""
        choices = [self._world.members(name) for _, name in recipe.ingredients]
        numbers = [number for number, _ in recipe.ingredients]
        return [[*zip(numbers, items, strict=True)] for items in product(*choices)]

    def _held(self) -> list[tuple[str, int]]:
        return sorted((item, number) for item, number in self._inventory.items() if number)


def open(params: Params, example: Example) -> Environment:
    """The engine; each row brings its own recipes."""
    return TextCraft()

"""The expert: a planner over the recipes that a game shows, from any inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from math import ceil, inf

from posttrain.environments.textcraft.recipes import Amount, Recipe, World, craft


class Planner:
    """Plans of one world, whose recipes must not go in circles."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._cost = cache(self._actions_for_one)

    def plan(self, goal: str, inventory: Mapping[str, int]) -> Iterator[str]:
        """The actions that lead from the inventory to one more goal item.

        Of several recipes or members of a group it takes the one with the fewest actions from nothing, but a member of
        which there is enough before any other.
        """
        yield from self._craft(self._best(goal), Counter(inventory))

    def makes(self, goal: str) -> bool:
        """Whether the goal can be crafted from base items at all."""
        return self._cost(goal) < inf

    def depth(self, name: str) -> int:
        """Crafting steps from base items to an item or any of a group, one inside the other, by the shortest way."""
        return min(
            0
            if item in self._world.base
            else min(
                1 + max(self.depth(part) for _, part in recipe.ingredients)
                for recipe in self._world.recipes_of(item)
                if self._recipe_cost(recipe) < inf
            )
            for item in self._world.members(name)
            if self._cost(item) < inf
        )

    def needed(self, goal: str) -> set[Recipe]:
        """All recipes that some way to the goal uses."""
        found: set[Recipe] = set()
        items = [goal]
        while items:
            for recipe in self._world.recipes_of(items.pop()):
                if recipe not in found:
                    found.add(recipe)
                    items += [
                        item for _, name in recipe.ingredients for item in self._world.members(name)
                    ]
        return found

    def _actions_for_one(self, item: str) -> float:
        if item in self._world.base:
            return 1
        costs = [self._recipe_cost(recipe) for recipe in self._world.recipes_of(item)]
        return min(costs, default=inf)

    def _recipe_cost(self, recipe: Recipe) -> float:
        return 1 + sum(self._amount_cost(amount) for amount in recipe.ingredients)

    def _amount_cost(self, amount: Amount) -> float:
        number, name = amount
        return min(self._several(number, item) for item in self._world.members(name))

    def _several(self, number: int, item: str) -> float:
        if item in self._world.base:
            return 1
        made = [recipe.count for recipe in self._world.recipes_of(item)]
        return self._cost(item) * ceil(number / max(made, default=1))

    def _best(self, item: str) -> Recipe:
        return min(self._world.recipes_of(item), key=self._recipe_cost)

    def _craft(self, recipe: Recipe, stock: Counter[str]) -> Iterator[str]:
        """The actions that carry out a recipe; what the stock has for it is set aside as soon as it is there."""
        used: list[Amount] = []
        for number, name in recipe.ingredients:
            members = self._world.members(name)
            ready = [item for item in members if stock[item] >= number]
            item = next(iter(ready), None) or min(members, key=lambda m: self._several(number, m))
            if item in self._world.base:
                if stock[item] < number:
                    yield f"get {number - stock[item]} {item}"
                    stock[item] = number
            else:
                while stock[item] < number:
                    yield from self._craft(self._best(item), stock)
            stock[item] -= number
            used.append((number, item))
        yield craft(recipe.item, recipe.count, used)
        stock[recipe.item] += recipe.count

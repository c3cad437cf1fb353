"""Games with generated recipes.

Each game has a world of its own, so that recipes must be read and cannot be learned by heart. Items are words of two
syllables. A goal's name, and so its set of recipes, occurs once in all splits together.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from posttrain.core.errors import UserError
from posttrain.environments.textcraft.recipes import ANY, Amount, Recipe, World

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
WORDS = len(_SYLLABLES) ** 2
_YIELDS = (1, 1, 1, 2, 2, 3, 4)
_DEEPER = 0.25  # probability that a further ingredient is crafted, too
_GROUP = 0.4  # probability that an ingredient crafted from base items is any of a group
_REUSED = 0.3  # probability that a base item is one that the game has already


def goals(seed: int, count: int) -> list[str]:
    """`count` distinct words; `UserError` if there are not so many."""
    if count > WORDS:
        raise UserError(f"{count} games, and there are {WORDS} words to name their goals")
    words = [first + second for first in _SYLLABLES for second in _SYLLABLES]
    return Random(seed).sample(words, count)


def generate_world(random: Random, goal: str, depth: int, distractors: int) -> World:
    """A world in which the goal is `depth` crafting steps from base items."""
    made = _Maker(random, goal)
    made.item(goal, depth)
    for _ in range(distractors):
        made.distractor()
    random.shuffle(made.recipes)
    return World(tuple(made.recipes), made.groups, frozenset(made.base))


class _Maker:
    def __init__(self, random: Random, goal: str) -> None:
        self._random, self._words = random, self._new_words(goal)
        self.recipes: list[Recipe] = []
        self.groups: dict[str, list[str]] = {}
        self.base: list[str] = []

    def _new_words(self, goal: str) -> Iterator[str]:
        used = {goal}
        while True:
            word = "".join(self._random.choices(_SYLLABLES, k=2))
            if word not in used:
                used.add(word)
                yield word

    def item(self, name: str, depth: int) -> None:
        """Add a recipe for an item of that depth, and for all that it needs."""
        further = self._random.randint(0, 2 if depth == 1 else 1)
        depths = [depth - 1]
        for _ in range(further):
            deeper = depth > 2 and self._random.random() < _DEEPER
            depths.append(self._random.randint(1, depth - 2) if deeper else 0)
        parts: dict[str, int] = {}
        for each in depths:
            number, part = self._ingredient(each)
            parts.setdefault(part, number)
        ingredients = [(number, part) for part, number in parts.items()]
        self._random.shuffle(ingredients)
        self.recipes.append(Recipe(name, self._random.choice(_YIELDS), tuple(ingredients)))

    def distractor(self) -> None:
        """Add a recipe for something that is not needed, from something that is and something new."""
        known = [name for recipe in self.recipes for _, name in recipe.ingredients]
        ingredients = [(self._number(), self._random.choice(known))]
        if self._random.random() < 0.5:
            ingredients.append((self._number(), self._base(reused=0)))
        name = next(self._words)
        self.recipes.append(Recipe(name, self._random.choice(_YIELDS), tuple(ingredients)))

    def _ingredient(self, depth: int) -> Amount:
        if depth == 0:
            return self._number(), self._base(_REUSED)
        number = self._random.randint(1, 2)
        if depth == 1 and self._random.random() < _GROUP:
            return number, self._group()
        name = next(self._words)
        self.item(name, depth)
        return number, name

    def _group(self) -> str:
        """A group of two items, each crafted from a base item of its own."""
        group = next(self._words)
        kinds = [f"{next(self._words)} {group}" for _ in range(2)]
        count = self._random.choice(_YIELDS)
        for kind in kinds:
            self.recipes.append(Recipe(kind, count, ((self._number(), self._base(reused=0)),)))
        self.groups[group] = kinds
        return ANY + group

    def _base(self, reused: float) -> str:
        if self.base and self._random.random() < reused:
            return self._random.choice(self.base)
        self.base.append(next(self._words))
        return self.base[-1]

    def _number(self) -> int:
        return self._random.randint(1, 4)

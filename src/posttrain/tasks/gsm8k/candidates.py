"""Candidate pools: K distinct answers to one problem, one of them the gold answer, in random order.

A pool must not be solvable without reading the problem. In a naive pool gold gives itself away: all other candidates
are one edit away from it, and a slip makes a calculation visibly wrong. So a pool is a grid, and every change is
carried through to the final number:

* Columns are choices of numbers. One to three numbers that gold uses each range over a few values: other numbers of the
  problem, and numbers that training answers use in the same place, by their frequency (so a number's frequency does not
  tell whether it is right).
* Rows are operations: gold's, and gold's with one operator changed.

Every cell of the grid is arithmetically right, ends with the result of its last step, and is as close to the others as
gold is. The rest of the pool are special kinds: relative noise on a number, two numbers swapped; dropped step, another
final number, format error. A step's result stays a whole number where gold's is one, as long as there are enough such
cells. Only gold is right: any other candidate that ends with the gold answer is sampled again. How well blind baselines
still do is measured by `posttrain.pools.blind`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, product

from posttrain.core.params import Params
from posttrain.tasks import Candidate, Example
from posttrain.tasks.gsm8k.arithmetic import format_number
from posttrain.tasks.gsm8k.prompt import render_answer, target
from posttrain.tasks.gsm8k.reading import MARK, strip
from posttrain.tasks.gsm8k.solution import (
    OPERATORS,
    Change,
    Given,
    NotCarried,
    Place,
    Solution,
    carry,
    numbers_of,
    read_solution,
    write,
)

SPECIAL_RATE = {"plausible": 0.1, "corrupted": 0.35}  # share of a kind made outside the grid
PLAUSIBLE = {"noise": 1.0, "swap": 1.0}
CORRUPTED = {"dropped_step": 2.0, "random_answer": 0.5, "format_error": 1.0}
ATTEMPTS = 40
ROUNDS = 8  # of filling a pool that has too few cells
AXES = 3  # most numbers that change together
OTHER = 0.5  # probability that a number changes to another one of the problem
NEAR = 6  # largest factor by which a number changes
LARGEST = 10**9


@dataclass(frozen=True, slots=True)
class Habits:
    """Given numbers of training answers by role (operator and side), and how often each operator occurs.

    numbers: role -> ascending values and their cumulative counts.
    """

    numbers: Mapping[str, tuple[Sequence[Fraction], Sequence[int]]]
    operators: Mapping[str, int]

    def draw(self, role: str, near: Fraction, rng: random.Random) -> Fraction | None:
        """A random number of that role within a factor `NEAR` of `near`, by frequency; None if there is none."""
        values, ends = self.numbers.get(role, ((), ()))
        low, high = bisect_left(values, near / NEAR), bisect_right(values, near * NEAR)
        if low >= high:
            return None
        start = ends[low - 1] if low else 0
        return values[bisect_right(ends, rng.randrange(start, ends[high - 1]))]


def candidates(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """A function that makes pools, which has learned from the training examples alone what answers look like."""
    chosen, habits = params.pools, collect_habits(train)
    return lambda example, count: make_candidates(
        example,
        habits,
        count=count,
        corruption_rate=chosen.corruption_rate,
        noise=(chosen.noise[0], chosen.noise[1]),
        seed=chosen.seed,
    )


def collect_habits(examples: Iterable[Example]) -> Habits:
    """The numbers and operators in the gold answers of a training split."""
    numbers: defaultdict[str, Counter[Fraction]] = defaultdict(Counter)
    operators: Counter[str] = Counter()
    for example in examples:
        solution = read_solution(example["solution"], example["target_answer"])
        for given, role in roles(solution).items():
            numbers[role][given] += 1
        for made in solution.calculations:
            operators.update(made.tokens[place] for place in made.operators)
    ranked = {role: sorted(counts.items()) for role, counts in numbers.items()}
    return Habits(
        {
            role: ([value for value, _ in pairs], [*accumulate(count for _, count in pairs)])
            for role, pairs in ranked.items()
        },
        dict(operators),
    )


def roles(solution: Solution) -> dict[Given, str]:
    """The role of each given number where it first occurs: "*<" left in a product, "answer" if no step gives it."""
    found: dict[Given, str] = {}
    for made in solution.calculations:
        for place, link in enumerate(made.links):
            if isinstance(link, Fraction):
                before, after = made.tokens[max(0, place - 1)], made.tokens[place + 1 : place + 2]
                left = before in OPERATORS and place > 0
                found.setdefault(link, f"{before}>" if left else f"{''.join(after)}<")
    if isinstance(solution.final, Fraction):
        found.setdefault(solution.final, "answer")
    return found


def make_candidates(
    example: Example,
    habits: Habits,
    *,
    count: int,
    corruption_rate: float,
    noise: tuple[float, float],
    seed: int,
) -> list[Candidate]:
    """A pool of exactly `count` distinct candidates, shuffled by (seed, example id)."""
    rng = random.Random(f"{seed}/{example['id']}")
    pool = _Pool(example, habits, noise, rng)
    kinds = [
        "corrupted" if rng.random() < corruption_rate else "plausible" for _ in range(count - 1)
    ]
    special = [kind for kind in kinds if rng.random() < SPECIAL_RATE[kind]]
    counts = Counter(kinds)
    counts.subtract(special)
    pool.fill_grid(counts["plausible"], counts["corrupted"])
    for kind in special:
        pool.add_special(kind)
    pool.fill(count)
    rng.shuffle(pool.candidates)
    return pool.candidates


class _Pool:
    """A pool under construction: its candidates so far, and the changes that special kinds start from."""

    def __init__(
        self, example: Example, habits: Habits, noise: tuple[float, float], rng: random.Random
    ) -> None:
        self.habits = habits
        self.noise = noise
        self.rng = rng
        self.stripped = example["annotations"] == "strip"
        self.solution = read_solution(example["solution"], example["target_answer"])
        self.roles = roles(self.solution)
        self.problem = list(dict.fromkeys(numbers_of(example["question"])))
        self.wholes = [made.result.denominator == 1 for made in self.solution.calculations]
        self.columns: list[dict[Given, Fraction]] = [{}]
        self.made: list[Change] = []
        self.finals = {self.solution.answer}
        self.candidates = [Candidate(target(example), "gold", "gold")]

    # ------------------------------------------------------------------ the grid

    def fill_grid(self, plausible: int, corrupted: int) -> None:
        """Add up to `plausible` cells with gold's operations and `corrupted` ones with others."""
        for edit, column in self._choices(2 * (plausible + corrupted)):
            if plausible and self._add("plausible", edit, Change(column)):
                plausible -= 1
                self.columns.append(column)
        self._change_operators(corrupted)

    def _change_operators(self, count: int) -> None:
        """Add up to `count` cells of rows with another operator."""
        places = sorted(self.solution.changeable)
        for _ in range(ATTEMPTS):
            if not count or not places:
                return
            row = self._other_operator(self.rng.choice(places))
            for column in self.rng.sample(self.columns, min(3, len(self.columns))):
                if count and self._add("corrupted", "operation", Change(column, row)):
                    count -= 1

    def _choices(self, wanted: int) -> list[tuple[str, dict[Given, Fraction]]]:
        """About `wanted` choices of numbers, as (edit, values of those that change), shuffled."""
        givens = self.solution.givens
        axes = self.rng.sample(givens, min(len(givens), self.rng.randint(1, AXES)))
        if isinstance(self.solution.final, Fraction):  # else nothing changes the final number
            axes = list(dict.fromkeys([self.solution.final, *axes]))
        size = max(2, math.ceil((wanted + 1) ** (1 / len(axes))))
        windows = [[given, *self._others(given, size - 1)] for given in axes]
        choices = []
        for values in product(*windows):
            column = {
                given: value for given, value in zip(axes, values, strict=True) if value != given
            }
            if column:
                ours = any(value in self.problem for value in column.values())
                choices.append(("other_number" if ours else "copying_slip", column))
        self.rng.shuffle(choices)
        return choices[: 2 * wanted]

    def _others(self, given: Given, count: int) -> list[Fraction]:
        """Up to `count` values for which a number may be mistaken."""
        used = set(self.solution.givens)
        found: dict[Fraction, None] = {}
        for _ in range(ATTEMPTS):
            if len(found) == count:
                break
            free = [number for number in self.problem if number not in used and number > 0]
            if free and self.rng.random() < OTHER:
                value: Fraction | None = self.rng.choice(free)
            else:
                value = self.habits.draw(self.roles[given], given, self.rng)
            if value is not None and value not in used:
                found[value] = None
        return list(found)

    def _other_operator(self, place: Place) -> dict[Place, str]:
        present = self.solution.calculations[place[0]].tokens[place[1]]
        counts = {sign: count for sign, count in self.habits.operators.items() if sign != present}
        if not counts:
            counts = {sign: 1 for sign in OPERATORS if sign != present}
        return {place: self.rng.choices(list(counts), list(counts.values()))[0]}

    # ------------------------------------------------------------------ special kinds

    def add_special(self, kind: str) -> None:
        """Add one candidate made by a special edit, if one fits."""
        weights = CORRUPTED if kind == "corrupted" else PLAUSIBLE
        for _ in range(ATTEMPTS):
            edit = self.rng.choices(list(weights), list(weights.values()))[0]
            change = self._edits[edit](self)
            if change is not None and self._add(kind, edit, change):
                return

    def fill(self, count: int) -> None:
        """Add cells of other grids until the pool is full; where nothing fits, gold with another final number."""
        for attempt in range(ROUNDS):
            # A step that is no whole number is better than a random final number.
            if attempt == ROUNDS // 2:
                self.wholes = [False] * len(self.wholes)
            for edit, column in self._choices(count):
                if len(self.candidates) == count:
                    return
                if self._add("plausible", edit, Change(column)):
                    self.columns.append(column)
            self._change_operators(count - len(self.candidates))
        size = max(10, 2 * math.ceil(abs(self.solution.answer)), 4 * count)
        while len(self.candidates) < count:
            number = Fraction(self.rng.randint(1, size))
            if number not in self.finals:
                self.finals.add(number)
                text = render_answer(self.solution.text, format_number(number))
                self._put(Candidate(text, "corrupted", "random_answer"))

    def _noisy(self) -> Change | None:
        """Change a number by the relative noise, up or down, and keep its number of decimals."""
        given = self.rng.choice(self.solution.givens)
        factor = 1 + self.rng.choice((-1, 1)) * self.rng.uniform(*self.noise)
        decimals = len(format_number(given).partition(".")[2])
        noisy = round(Fraction(given) * Fraction(factor), decimals)
        if noisy <= 0 or noisy == given:
            return None
        return Change({**self.rng.choice(self.columns), given: noisy})

    def _swapped(self) -> Change | None:
        """Swap two given numbers."""
        givens = self.solution.givens
        if len(givens) < 2:
            return None
        first, second = self.rng.sample(givens, 2)
        return Change({**self.rng.choice(self.columns), first: second, second: first})

    def _shorter(self) -> Change | None:
        """Leave out one step with its line; its result is replaced by one of the numbers that went into it."""
        lines = {part.step for part in self.solution.parts if part.step >= 0}
        if not lines or len(self.solution.calculations) < 2:
            return None
        step = self.rng.choice(sorted(lines))
        links = [link for link in self.solution.calculations[step].links if link is not None]
        column = self.rng.choice(self.columns)
        return Change(column, {}, {step: self.rng.choice(links)}) if links else None

    def _before(self) -> Change | None:
        """Another candidate's change or a new choice of numbers, for an answer that is broken anyway."""
        if self.made and self.rng.random() < 0.5:
            return self.rng.choice(self.made)
        choices = self._choices(4)
        return Change(choices[0][1]) if choices else None

    _edits: Mapping[str, Callable[[_Pool], Change | None]] = {
        "noise": _noisy,
        "swap": _swapped,
        "dropped_step": _shorter,
        "random_answer": _before,
        "format_error": _before,
    }

    # ------------------------------------------------------------------ texts

    def _add(self, kind: str, edit: str, change: Change) -> bool:
        """Add the candidate, unless it is right, has odd numbers, or its final number is there already."""
        try:
            results = carry(self.solution, change)
        except NotCarried:
            return False
        if not all(map(_usual, results, [*self.wholes, False])):
            return False
        final = results[-1]
        if edit == "random_answer":
            final = self._another(final)
        broken = edit == "format_error"
        if final == self.solution.answer or (final in self.finals and not broken) or final <= 0:
            return False
        text = render_answer(write(self.solution, change, results), format_number(final))
        if broken:
            return self._put(Candidate(self._broken(text), kind, edit))
        self.finals.add(final)
        self.made.append(change)
        return self._put(Candidate(text, kind, edit))

    def _put(self, made: Candidate) -> bool:
        if self.stripped:
            made = Candidate(strip(made.text), made.kind, made.edit)
        if any(made.text == other.text for other in self.candidates):
            return False
        self.candidates.append(made)
        return True

    def _another(self, final: Fraction) -> Fraction:
        """A random number of about the same size, whole if `final` is whole."""
        number = final * Fraction(self.rng.uniform(0.3, 3))
        return round(number, 0 if final.denominator == 1 else 2)

    def _broken(self, text: str) -> str:
        """Spoil the form of the final line, or cut the text short."""
        reasoning, _, number = text.rpartition(MARK)
        ways: Sequence[Callable[[], str]] = (
            lambda: reasoning.removesuffix("\n"),
            lambda: f"{reasoning}Answer: {number}",
            lambda: f"{reasoning}####{number}",
            lambda: f"{reasoning}{MARK}{number}\n{MARK}{number}",
            lambda: text[: self.rng.randrange(1, len(text))],
        )
        return self.rng.choice(ways)()


def _usual(value: Fraction, whole: bool) -> bool:
    """Whether a gold answer might have the value: above 0, whole if `whole`, with at most two decimals."""
    fitting = value.denominator == 1 if whole else (value * 100).denominator == 1
    return 0 < value < LARGEST and fitting

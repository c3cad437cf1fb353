"""Candidate pools: K distinct answers to one question, one of them the gold answer, in random order.

A pool must not be solvable without reading the page. In a naive pool gold gives itself away: all other candidates are
one edit away from it, so it is the centre, and edits leave odd programs. So a pool is a grid:

* Columns are operand choices. One or two coordinates of the gold operands (a row or a column of the table, a number of
  the text) range over a window of neighbours, in which gold has a random position. An operand that occurs twice moves
  twice, as for a person who misreads the table.
* Rows are program shapes: gold's, and others sampled from the training programs by their frequency.

Every cell of the grid is as close to the others as gold is. The rest of the pool are special kinds: noise, swapped
operands, changed step order or constant, formatting variant; missing step, random answer, format error. The stated
answer is the program's value, except in the last two. A formatting variant is right, and the only other candidate that
can be: any other that executes to the gold answer is sampled again. How well blind baselines still do is measured by
`posttrain.pools.blind`.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.tasks import Candidate, Example
from posttrain.tasks.finqa.program import (
    CONSTANTS,
    Answer,
    ExecutionError,
    Program,
    ProgramError,
    Step,
    execute,
    format_answer,
    parse,
    render,
    resolve,
)
from posttrain.tasks.finqa.prompt import render_answer

SPECIAL_RATE = {"plausible": 0.12, "corrupted": 0.3}  # share of a kind made outside the grid
PLAUSIBLE = {"noise": 2.0, "swap": 2.0, "order": 1.0, "constant": 1.0, "format": 0.25}
CORRUPTED = {"missing_step": 1.0, "random_answer": 1.0, "format_error": 1.0}
ATTEMPTS = 50
WINDOW = 8  # most values that one coordinate takes in a grid
COMMON = 0.1  # a wrong answer of a size that fewer gold answers have is kept in proportion

_CELL = re.compile(r"([A-Z]+)([0-9]+)")
_TEXT_NUMBER = re.compile(r"T([0-9]+)")


@dataclass(frozen=True)
class Shapes:
    """Typical gold answers of a training split.

    programs: the shapes (operands named x0, x1, ...). counts: how often each occurs. sizes: the share of each order of
    magnitude and sign among the answers.
    """

    programs: tuple[Program, ...]
    counts: tuple[int, ...]
    sizes: Mapping[str, float]


@dataclass(frozen=True)
class Place:
    """The place of an operand: a cell (column, row) or, with column "T", the number `row` of the text."""

    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.column}{self.row}"


Axis = tuple[str, str | int]  # ("row", 3), ("column", "B"), ("text", 4)


def candidates(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """A function that makes pools, which has learned from the training examples alone what answers look like."""
    chosen, shapes = params.pools, collect_shapes(train)
    return lambda example, count: make_candidates(
        example,
        shapes,
        count=count,
        corruption_rate=chosen.corruption_rate,
        noise=(chosen.noise[0], chosen.noise[1]),
        seed=chosen.seed,
    )


def collect_shapes(examples: Iterable[Mapping[str, Any]]) -> Shapes:
    """The shapes of the examples' gold programs, most frequent first, and the sizes of their answers."""
    counter: Counter[Program] = Counter()
    sizes: Counter[str] = Counter()
    for example in examples:
        counter[_shape(parse(example["target_program"]))] += 1
        sizes[_size(example["exe_ans"])] += 1
    ranked = sorted(counter.items(), key=lambda item: (-item[1], render(item[0])))
    return Shapes(
        tuple(shape for shape, _ in ranked),
        tuple(count for _, count in ranked),
        {size: count / sizes.total() for size, count in sizes.items()},
    )


def make_candidates(
    example: Mapping[str, Any],
    shapes: Shapes,
    *,
    count: int,
    corruption_rate: float,
    noise: tuple[float, float],
    seed: int,
) -> list[Candidate]:
    """A pool of exactly `count` distinct candidates, shuffled by (seed, example id).

    `UserError`, with the example's id, if its gold program does not execute.
    """
    rng = random.Random(f"{seed}/{example['id']}")
    pool = _Pool(example, shapes, noise, rng)
    kinds = [
        "corrupted" if rng.random() < corruption_rate else "plausible" for _ in range(count - 1)
    ]
    special = [kind for kind in kinds if rng.random() < SPECIAL_RATE[kind]]
    counts = Counter(kinds)
    counts.subtract(special)
    pool.fill_grid(1 + counts["plausible"], counts["corrupted"])
    for kind in special:
        pool.add_special(kind)
    while len(pool.candidates) < count:
        pool.fill()
    rng.shuffle(pool.candidates)
    return pool.candidates


class _Pool:
    """A pool under construction: its candidates so far, and the programs that special kinds start from."""

    def __init__(
        self,
        example: Mapping[str, Any],
        shapes: Shapes,
        noise: tuple[float, float],
        rng: random.Random,
    ) -> None:
        self.references: Mapping[str, str] = example["references"]
        self.table = example["table"]
        self.shapes = shapes
        self.noise = noise
        self.rng = rng
        self.cells = example["operands"] == "cells"
        self.spelling = {literal: name for name, literal in reversed(self.references.items())}
        gold = parse(example["target_program"])
        value = self.value(gold)
        if value is None:
            raise UserError(f"example {example['id']}: the gold program does not execute")
        self.gold, self.target = gold, value
        self.sources = [gold]
        # Operand choices so far; the first is gold's own.
        self.choices: list[Mapping[str, str]] = [{}]
        self.programs = {self._literal(gold)}
        text = render_answer(example["target_program"], example["target_answer"])
        self.candidates = [Candidate(text, "gold", "gold")]

    def value(self, program: Program) -> Answer | None:
        """The program's value, or None."""
        try:
            return execute(resolve(program, self.references), self.table)
        except (ProgramError, ExecutionError):
            return None

    # ------------------------------------------------------------------ the grid

    def fill_grid(self, plausible: int, corrupted: int) -> None:
        """Add up to `plausible - 1` programs of gold's shape and `corrupted` programs of other shapes."""
        choices = self._operand_choices(3 * max(plausible, corrupted))
        missing = plausible - 1
        for edit, mapping in choices:
            if missing and self._add("plausible", edit, _substitute(self.gold, mapping)):
                missing -= 1
        self.choices.extend(mapping for _, mapping in choices)
        missing = corrupted
        for _ in range(ATTEMPTS):
            other = self._other_shape()
            self.rng.shuffle(self.choices)
            for chosen in self.choices:
                if (
                    missing
                    and other
                    and self._add("corrupted", "operation", _substitute(other, chosen))
                ):
                    missing -= 1
            if not missing:
                return

    def _operand_choices(self, wanted: int) -> list[tuple[str, dict[str, str]]]:
        """About `wanted` other choices of the gold operands, as (edit, mapping from gold's operands)."""
        places = {name: place for name in _operands(self.gold) if (place := self._place(name))}
        axes = _axes(places.values())
        self.rng.shuffle(axes)
        windows: list[list[tuple[Axis, str | int]]] = []
        size = 1
        for axis in axes:
            if size > wanted:
                break
            need = -(-(wanted + 1) // size)
            if len(axes) > 1 and not windows:
                need = self.rng.randint(2, max(2, need))
            window = self._window(axis, places, min(need, WINDOW))
            if len(window) > 1:
                windows.append([(axis, value) for value in window])
                size *= len(window)
        choices = []
        for moves in product(*windows):
            mapping = self._moved(places, dict(moves))
            changed = [axis[0] for axis, value in moves if axis[1] != value]
            if changed and mapping is not None:
                choices.append((changed[0] if len(changed) == 1 else "several", mapping))
        self.rng.shuffle(choices)
        return choices

    def _window(self, axis: Axis, places: Mapping[str, Place], size: int) -> list[str | int]:
        """Up to `size` neighbouring values of a coordinate, with the present one at a random position."""
        kind, present = axis
        known = (self._place(name) for name in self.references)
        values = {
            place.column if kind == "column" else place.row
            for place in known
            if place
            and (place.column == "T") == (kind == "text")
            and (kind, place.column) != ("column", "A")
        }
        fitting = [
            value
            for value in sorted(values, key=lambda value: (len(str(value)), str(value)))
            if value == present or self._moved(places, {axis: value}) is not None
        ]
        if present not in fitting:
            return []
        index = fitting.index(present)
        first = self.rng.randint(max(0, index - size + 1), index)
        first = max(0, min(first, len(fitting) - size))
        return fitting[first : first + size]

    def _moved(
        self, places: Mapping[str, Place], moves: Mapping[Axis, str | int]
    ) -> dict[str, str] | None:
        """Gold's operands after the moves; None if one leaves the page, or two become the same."""
        mapping = {}
        for name, place in places.items():
            moved = _move(place, moves)
            if not self._usable(moved):
                return None
            mapping[name] = self._spell(moved)
        literals = [self.references.get(name, name) for name in mapping.values()]
        return mapping if len(set(literals)) == len(literals) else None

    def _other_shape(self) -> Program | None:
        """A shape of the training programs on gold's operands; None if they cannot fill it."""
        shape = self.rng.choices(self.shapes.programs, self.shapes.counts)[0]
        label = any(step.op.startswith("table_") for step in shape)
        mine = [name for name in _operands(self.gold) if self._is_label(name) == label]
        if not mine or len(mine) < len(_operands(shape)):
            mine += self._around(label, mine)
        needed = _operands(shape)
        if len(mine) < len(needed):
            return None
        return _substitute(shape, dict(zip(needed, mine, strict=False)))

    # ------------------------------------------------------------------ special kinds

    def add_special(self, kind: str) -> None:
        """Add one candidate made by a special edit, or by `fill` where none fits."""
        weights = CORRUPTED if kind == "corrupted" else PLAUSIBLE
        for _ in range(ATTEMPTS):
            edit = self.rng.choices(list(weights), list(weights.values()))[0]
            if edit == "format" and self._add_format_variant():
                return
            source = self.rng.choice(self.sources)
            program = self._edits[edit](self, source) if edit in self._edits else None
            if program is not None and self._add(kind, edit, program):
                return
        self.fill()

    def fill(self) -> None:
        """Add a candidate of another shape or, where none fits, a program on random numbers."""
        for _ in range(ATTEMPTS):
            other = self._other_shape()
            chosen = self.rng.choice(self.choices)
            if other and self._add("corrupted", "operation", _substitute(other, chosen)):
                return
        while not self._add("plausible", "noise", self._fresh_numbers(), any_size=True):
            continue

    def _add(self, kind: str, edit: str, program: Program, any_size: bool = False) -> bool:
        """Add the candidate, unless it is right, fails to execute, is odd, or is there already."""
        value = self.value(program)
        if value is None or value == self.target or self._literal(program) in self.programs:
            return False
        # Wrong programs often give values of unusual size; most of these are sampled again.
        common = self.shapes.sizes.get(_size(value), 0.0) / COMMON
        if not any_size and self.rng.random() > common:
            return False
        if any(step.arg1 == step.arg2 for step in program):  # no annotator writes subtract(B3, B3)
            return False
        answer = self._random_answer(value) if edit == "random_answer" else format_answer(value)
        text = render_answer(render(program), answer)
        if edit == "format_error":
            text = self._break(text)
        if any(text == candidate.text for candidate in self.candidates):
            return False
        self.programs.add(self._literal(program))
        self.sources.append(program)
        self.candidates.append(Candidate(text, kind, edit))
        return True

    def _swap(self, program: Program) -> Program | None:
        """Swap two operands wherever they occur."""
        operands = [name for name in _operands(program) if not self._is_label(name)]
        if len(operands) < 2:
            return None
        first, second = self.rng.sample(operands, 2)
        return _substitute(program, {first: second, second: first})

    def _order(self, program: Program) -> Program | None:
        """Exchange the operations of two successive steps."""
        if len(program) < 2:
            return None
        index = self.rng.randrange(len(program) - 1)
        first, second = program[index], program[index + 1]
        if first.op.startswith("table_") or second.op.startswith("table_"):
            return None
        swapped = (
            Step(second.op, first.arg1, first.arg2),
            Step(first.op, second.arg1, second.arg2),
        )
        return program[:index] + swapped + program[index + 2 :]

    def _constant(self, program: Program) -> Program | None:
        """Replace a constant by another common one."""
        used = [arg for step in program for arg in (step.arg1, step.arg2) if arg in CONSTANTS]
        common = ("const_100", "const_2", "const_3", "const_1000", "const_1000000", "const_1")
        constant = self._choose(used)
        other = self._choose([name for name in common if name != constant])
        return _substitute(program, {constant: other}) if constant and other else None

    def _noise(self, program: Program) -> Program | None:
        """Change a number by the relative noise, up or down, and keep its number of decimals."""
        operand = self._choose([name for name in _operands(program) if not self._is_label(name)])
        if operand is None:
            return None
        literal = self.references.get(operand, operand)
        digits = literal.rstrip("%").replace(",", "")
        try:
            number = float(digits)
        except ValueError:
            return None
        factor = 1 + self.rng.choice((-1, 1)) * self.rng.uniform(*self.noise)
        noisy = f"{number * factor:.{len(digits.partition('.')[2])}f}" + "%" * literal.endswith("%")
        return _substitute(program, {operand: noisy})

    def _missing_step(self, program: Program) -> Program | None:
        """Leave out one step; steps that used its result use its first operand instead."""
        if len(program) < 2:
            return None
        drop = self.rng.randrange(len(program))
        dropped = program[drop]
        if dropped.op.startswith("table_"):
            return None

        def renumber(arg: str) -> str:
            if not arg.startswith("#"):
                return arg
            index = int(arg[1:])
            return dropped.arg1 if index == drop else f"#{index - (index > drop)}"

        rest = program[:drop] + program[drop + 1 :]
        return tuple(Step(step.op, renumber(step.arg1), renumber(step.arg2)) for step in rest)

    def _wrong_program(self, program: Program) -> Program | None:
        """A program with misread operands or of another shape, for an answer that is broken anyway."""
        if self.rng.random() < 0.5:
            return self._other_shape()
        choices = self._operand_choices(4)
        return _substitute(self.gold, choices[0][1]) if choices else None

    _edits: Mapping[str, Callable[[_Pool, Program], Program | None]] = {
        "swap": _swap,
        "order": _order,
        "constant": _constant,
        "noise": _noise,
        "missing_step": _missing_step,
        "random_answer": _wrong_program,
        "format_error": _wrong_program,
    }

    def _add_format_variant(self) -> bool:
        """Add the gold program with its answer written as a percentage or rounded; at most once per pool."""
        if isinstance(self.target, str) or any(made.edit == "format" for made in self.candidates):
            return False
        percent, rounded = f"{self.target * 100:.2f}%", f"{self.target:.2f}"
        text = render_answer(render(self.gold), percent if abs(self.target) < 10 else rounded)
        if any(text == made.text for made in self.candidates):
            return False
        self.candidates.append(Candidate(text, "plausible", "format"))
        return True

    def _fresh_numbers(self) -> Program:
        """A one-step program on random numbers."""
        operation = self.rng.choice(("add", "subtract", "divide"))
        return (Step(operation, str(self.rng.randint(1, 9999)), str(self.rng.randint(1, 9999))),)

    def _random_answer(self, value: Answer) -> str:
        if isinstance(value, str):
            return "no" if value == "yes" else "yes"
        return format_answer(round(self.rng.uniform(0.1, 3) * (value or 1.0) + 0.01, 5))

    def _break(self, text: str) -> str:
        """Make the JSON invalid: remove a quote or bracket, or cut the text short."""
        marks = [index for index, character in enumerate(text) if character in '"]}']
        index = self.rng.choice(marks)
        return text[:index] + text[index + 1 :] if self.rng.random() < 0.7 else text[: index or 1]

    # ------------------------------------------------------------------ operands of this page

    def _choose(self, names: Sequence[str]) -> str | None:
        return self.rng.choice(names) if names else None

    def _place(self, operand: str) -> Place | None:
        """The place of an operand, in either spelling; None for a number that is not on the page."""
        reference = operand if operand in self.references else self.spelling.get(operand, "")
        if text := _TEXT_NUMBER.fullmatch(reference):
            return Place("T", int(text[1]))
        cell = _CELL.fullmatch(reference)
        return Place(cell[1], int(cell[2])) if cell else None

    def _spell(self, place: Place) -> str:
        """The operand at a place, as this page's programs write it."""
        return str(place) if self.cells else self.references[str(place)]

    def _is_label(self, operand: str) -> bool:
        place = self._place(operand)
        return place is not None and place.column == "A"

    def _usable(self, place: Place) -> bool:
        """Whether a program may name the place: not a header, nor a label with brackets."""
        literal = self.references.get(str(place))
        if literal is None or any(mark in literal for mark in "(),|#"):
            return False
        return place.column == "T" or place.row > 1

    def _around(self, label: bool, taken: Sequence[str]) -> list[str]:
        """Row labels or numbers that are not `taken`, those on gold's rows and columns first."""
        gold = [place for name in _operands(self.gold) if (place := self._place(name))]

        def distance(place: Place) -> tuple[bool, float]:
            apart = [
                (place.column != other.column) + (place.row != other.row)
                if (place.column == "T") == (other.column == "T")
                else 3
                for other in gold
            ]
            return min(apart, default=0) > 1, self.rng.random()

        places = [place for name in self.references if (place := self._place(name))]
        free = [place for place in places if (place.column == "A") == label and self._usable(place)]
        return [
            name
            for place in sorted(free, key=distance)
            if (name := self._spell(place)) not in taken
        ]

    def _literal(self, program: Program) -> str:
        return render(_substitute(program, self.references))


def _operands(program: Program) -> list[str]:
    """The distinct operands that name something on the page (or a shape's x0, x1, ...), in order."""
    found = dict.fromkeys(
        arg
        for step in program
        for arg in ((step.arg1,) if step.op.startswith("table_") else (step.arg1, step.arg2))
        if not arg.startswith("#") and arg not in CONSTANTS
    )
    return list(found)


def _substitute(program: Program, mapping: Mapping[str, str]) -> Program:
    return tuple(
        Step(step.op, mapping.get(step.arg1, step.arg1), mapping.get(step.arg2, step.arg2))
        for step in program
    )


def _shape(program: Program) -> Program:
    return _substitute(
        program, {operand: f"x{index}" for index, operand in enumerate(_operands(program))}
    )


def _size(answer: Answer) -> str:
    """Order of magnitude and sign: "-1e2" for -250."""
    if isinstance(answer, str):
        return answer
    if not answer or not math.isfinite(answer):
        return str(answer)
    return f"{'-' * (answer < 0)}1e{math.floor(math.log10(abs(answer)))}"


def _axes(places: Iterable[Place]) -> list[Axis]:
    """The distinct coordinates of the places; labels have a row only."""
    axes: dict[Axis, None] = {}
    for place in places:
        if place.column == "T":
            axes[("text", place.row)] = None
        else:
            axes[("row", place.row)] = None
            if place.column != "A":
                axes[("column", place.column)] = None
    return list(axes)


def _move(place: Place, moves: Mapping[Axis, str | int]) -> Place:
    if place.column == "T":
        return Place("T", int(moves.get(("text", place.row), place.row)))
    column = str(moves.get(("column", place.column), place.column))
    return Place(column, int(moves.get(("row", place.row), place.row)))

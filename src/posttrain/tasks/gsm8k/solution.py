"""A gold answer with linked calculations, so that a change of a number can be carried through to the end.

    solution = read_solution("Half of 48 is 48/2 = <<48/2=24>>24.\\nIn all 48+24 = <<48+24=72>>72.", "72")
    change = Change({Fraction(48): Fraction(40)})
    results = carry(solution, change)          [20, 60, 60]: of each step, and the final number
    write(solution, change, results)           "Half of 40 is 40/2 = <<40/2=20>>20.\\nIn all 40+20 = <<40+20=60>>60."

The text is cut into parts: words, numbers and operators. A number in an annotation is linked to the latest step with
that result, or else it is a given number, the same wherever it occurs. A number in words is linked by the steps of its
own line first. The expression in words before an annotation ("48/2 =") is linked to the annotation's if both have the
same number of operators. Parts without a link stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

from posttrain.tasks.gsm8k.arithmetic import (
    InvalidExpression,
    Token,
    evaluate,
    format_number,
    read_number,
    tokenize,
)
from posttrain.tasks.gsm8k.reading import ANNOTATION

OPERATORS = "+-*/"

_NUMBER = re.compile(r"(?<![\d.,])\d+(?:,\d{3})*(?:\.\d+)?(?!\d)|(?<![\d,])\.\d+")
_VISIBLE = re.compile(r"[\d$.,%()\s+\-*/x×÷]{1,80}=[\s$]*$")
_SIGN = re.compile(r"[-+*/x×÷]")

Given = Fraction  # a number of the problem, named by its value
Link = int | Given  # the step (its index) or the given number that a number stands for
Place = tuple[int, int]  # step, token of its expression


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the text; `step` is the one it belongs to. A number may have a link, an operator the place it shows."""

    text: str
    step: int
    link: Link | None = None
    operator: Place | None = None


@dataclass(frozen=True, slots=True)
class Calculation:
    """One annotation: its tokens, the link of each number among them, and its result."""

    tokens: tuple[str, ...]
    links: tuple[Link | None, ...]
    result: Fraction

    @property
    def operators(self) -> list[int]:
        """Places of the operators between two values."""
        return [
            place
            for place, token in enumerate(self.tokens)
            if token in OPERATORS and place and self.tokens[place - 1] not in (*OPERATORS, "(")
        ]


@dataclass(frozen=True, slots=True)
class Solution:
    """The parts of the reasoning in order, its calculations, the answer, and the link of the final number."""

    parts: tuple[Part, ...]
    calculations: tuple[Calculation, ...]
    answer: Fraction
    final: Link
    changeable: frozenset[Place]  # operators that may change without words contradicting them

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts)

    @property
    def givens(self) -> list[Given]:
        """The distinct given numbers in the calculations, in order, and the answer if no calculation gives it."""
        links = [*(link for made in self.calculations for link in made.links), self.final]
        return list(dict.fromkeys(link for link in links if isinstance(link, Fraction)))


@dataclass(frozen=True, slots=True)
class Change:
    """New values of given numbers, new operators, and dropped steps, each with a link in place of its result."""

    numbers: Mapping[Given, Fraction] = field(default_factory=dict)
    operators: Mapping[Place, str] = field(default_factory=dict)
    dropped: Mapping[int, Link] = field(default_factory=dict)


class NotCarried(ValueError):
    """The change cannot be carried through: a step has no value."""


def read_solution(text: str, answer: str) -> Solution:
    """Link the numbers of annotated gold reasoning; annotations that are no arithmetic count as words."""
    expected = read_number(answer)
    if expected is None:
        raise ValueError(f"the answer {answer!r} is no number")
    reader = _Reader(text.split("\n"), expected)
    last = [i for i, made in enumerate(reader.calculations) if made.result == expected]
    return Solution(
        tuple(reader.parts[:-1]),
        tuple(reader.calculations),
        expected,
        last[-1] if last else expected,
        frozenset(reader.changeable),
    )


def numbers_of(text: str) -> list[Fraction]:
    """The numbers in a text, in order."""
    found = (read_number(match[0]) for match in _NUMBER.finditer(text))
    return [number for number in found if number is not None]


def carry(solution: Solution, change: Change) -> list[Fraction]:
    """The result of each step after the change, then the final number; `NotCarried` if a step has none.

    A step in which nothing changes keeps its stated result, and so gold's rounding.
    """
    results: list[Fraction] = []
    for step, made in enumerate(solution.calculations):
        tokens: list[Token] = []
        changed = False
        for place, (token, link) in enumerate(zip(made.tokens, made.links, strict=True)):
            if link is not None:
                value = _resolve(link, change, results)
                changed |= value != _stated(solution, link)
                tokens.append(value)
            else:
                tokens.append(change.operators.get((step, place), token))
                changed |= tokens[-1] != token
        try:
            results.append(evaluate(tokens) if changed else made.result)
        except InvalidExpression as error:
            raise NotCarried(str(error)) from error
    return [*results, _resolve(solution.final, change, results)]


def write(solution: Solution, change: Change, results: Sequence[Fraction]) -> str:
    """The reasoning after the change, without the final line; `results` as from `carry`."""
    pieces = []
    for step, parts in groupby(solution.parts, key=lambda part: part.step):
        if step in change.dropped:
            continue
        for part in parts:
            if part.operator is not None:
                pieces.append(change.operators.get(part.operator, part.text))
            elif part.link is not None:
                value = _resolve(part.link, change, results)
                same = value == _stated(solution, part.link)
                pieces.append(part.text if same else _like(part.text, value))
            else:
                pieces.append(part.text)
    return "".join(pieces).strip("\n")


def _resolve(link: Link, change: Change, results: Sequence[Fraction]) -> Fraction:
    """The value of a link after the change."""
    while not isinstance(link, Fraction):
        if link not in change.dropped:
            return results[link]
        link = change.dropped[link]
    return change.numbers.get(link, link)


def _stated(solution: Solution, link: Link) -> Fraction:
    return link if isinstance(link, Fraction) else solution.calculations[link].result


def _like(written: str, value: Fraction) -> str:
    """The value written like the number that it replaces, with cents or thousands commas if that has them."""
    decimals = len(written.partition(".")[2])
    text = format_number(value, decimals if decimals == 2 else 0)
    if "," in written and abs(value) >= 1000:
        whole, point, rest = text.partition(".")
        return f"{int(whole):,}{point}{rest}"
    return text


class _Reader:
    """Reads the calculations of all lines, then the parts of each."""

    def __init__(self, lines: Sequence[str], answer: Fraction) -> None:
        self.answer = answer
        self.parts: list[Part] = []
        self.calculations: list[Calculation] = []
        self.changeable: set[Place] = set()
        notes = [self._notes(line) for line in lines]
        for line, found in zip(lines, notes, strict=True):
            parts = [*self._line(line, found), Part("\n", -1)]
            if len(found) == 1:
                (step,) = (step for _, _, step in found)
                parts = [Part(part.text, step, part.link, part.operator) for part in parts]
            self.parts += parts

    def _notes(self, line: str) -> list[tuple[int, int, int]]:
        """(start, stop, step) of each annotation of a line that is arithmetic."""
        found = []
        for match in ANNOTATION.finditer(line):
            made = self._calculation(match[1])
            if made is not None:
                found.append((*match.span(), len(self.calculations)))
                self.calculations.append(made)
        return found

    def _line(self, line: str, notes: Sequence[tuple[int, int, int]]) -> Iterator[Part]:
        new = [step for _, _, step in notes]
        end, before = 0, None
        for start, stop, step in notes:
            yield from self._words(line[end:start], new, before, step)
            yield from self._note(line[start:stop], step)
            end, before = stop, step
        yield from self._words(line[end:], new, before, None)

    def _calculation(self, note: str) -> Calculation | None:
        expression, _, stated = note.rpartition("=")
        result = read_number(stated)
        try:
            evaluate(expression)
            tokens = tokenize(expression)
        except InvalidExpression:
            return None
        if result is None:
            return None
        return Calculation(tuple(tokens), tuple(map(self._link, tokens)), result)

    def _link(self, token: str) -> Link | None:
        value = read_number(token)
        if value is None:
            return None
        steps = [i for i, made in enumerate(self.calculations) if made.result == value]
        return steps[-1] if steps else value

    def _note(self, note: str, step: int) -> Iterator[Part]:
        """The parts of an annotation such as <<48/2=24>>, without spaces inside."""
        made = self.calculations[step]
        yield Part("<<", -1)
        for place, (token, link) in enumerate(zip(made.tokens, made.links, strict=True)):
            operator = (step, place) if place in made.operators else None
            yield Part(token, -1, link, operator)
        yield Part("=", -1)
        yield Part(note.removesuffix(">>").rpartition("=")[2], -1, step)
        yield Part(">>", -1)

    def _words(
        self, text: str, new: Sequence[int], before: int | None, following: int | None
    ) -> Iterator[Part]:
        """The parts of the words between annotations.

        before, following: the steps before and after the words, if any. new: all steps of the line.
        """
        signs = self._signs(text, following)
        known = self._known(new, before, following)
        spans = [match.span() for match in _NUMBER.finditer(text)]
        end = 0
        for start, stop in sorted([*spans, *((start, start + 1) for start in signs)]):
            yield Part(text[end:start], -1)
            end = stop
            value = read_number(text[start:stop])
            link = None if value is None else known.get(value)
            yield Part(text[start:stop], -1, link, signs.get(start))
        yield Part(text[end:], -1)

    def _known(
        self, new: Sequence[int], before: int | None, following: int | None
    ) -> dict[Fraction, Link]:
        """The values that a number in words may stand for, each with its nearest link."""
        nearest: list[tuple[Fraction, Link]] = []
        if before is not None:
            nearest.append((self.calculations[before].result, before))
        order = [following] if following is not None else []
        for step in [*order, *new]:
            links = [link for link in self.calculations[step].links if link is not None]
            nearest += [(self._value(link), link) for link in links]
        earlier = range(new[-1] if new else -1, -1, -1)
        nearest += [(self.calculations[step].result, step) for step in earlier]
        nearest += [
            (link, link)
            for made in self.calculations
            for link in made.links
            if isinstance(link, Fraction)
        ]
        known: dict[Fraction, Link] = {}
        for value, link in nearest:
            known.setdefault(value, link)
        if all(made.result != self.answer for made in self.calculations):
            known.setdefault(self.answer, self.answer)
        return known

    def _value(self, link: Link) -> Fraction:
        return link if isinstance(link, Fraction) else self.calculations[link].result

    def _signs(self, text: str, following: int | None) -> dict[int, Place]:
        """By position in the words before an annotation, the places of its operators that the words show."""
        if following is None:
            return {}
        made = self.calculations[following]
        visible = _VISIBLE.search(text)
        if visible is None:
            self.changeable |= {(following, place) for place in made.operators}
            return {}
        found = [visible.start() + match.start() for match in _SIGN.finditer(visible[0])]
        if len(found) != len(made.operators):
            return {}
        places = [(following, place) for place in made.operators]
        self.changeable |= set(places)
        return dict(zip(found, places, strict=True))

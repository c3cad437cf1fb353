"""Small programs over integers, texts and lists, generated from a seed: what the tasks about programs are made of.

    made = draw_program(Random(0), steps=3)
    made.text           x = [int(n) for n in input().split()]
                        x = sorted(x)
                        x = x[:3]
                        print(*x)
    made.told           "Read a line of integers. Sort them. Then keep the first 3. Print the integers on one line."
    made.output("4 1 2 9")          "1 2 4"

A program reads one line, changes its value in one to `steps` steps, and prints it. It is kept if a fixed guess is of
little use: `INPUTS` random inputs give at least `OUTPUTS` outputs, none of them empty, and each step changes the value
of most. `output` is computed by the steps' own functions; no text is executed.

Left out: branches, loops over lines, functions, and anything that can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from random import Random
from typing import Any, Literal

Kind = Literal["number", "numbers", "text", "words"]

INPUTS = 20
OUTPUTS = 10
ATTEMPTS = 1000

WORDS = (
    *("apple", "River", "stone", "Cloud", "green", "Tiger", "seven", "Bread", "ocean", "lamp", "Violet", "sun"),
    *("Garden", "tree", "paper", "Moon", "window", "bird", "Castle", "rain", "old", "Bottle", "ink", "Summer"),
    *("kite", "Orange", "hill", "Doctor", "snow", "unit", "Eagle", "map", "yellow", "Anchor", "egg", "Forest"),
)  # fmt: skip
READ: Mapping[Kind, tuple[str, str]] = {
    "number": ("x = int(input())", "Read an integer."),
    "numbers": ("x = [int(n) for n in input().split()]", "Read a line of integers."),
    "text": ("x = input()", "Read a line of text."),
    "words": ("x = input().split()", "Read a line of words."),
}
PRINT: Mapping[Kind, tuple[str, str]] = {
    "number": ("print(x)", "Print the result."),
    "numbers": ("print(*x)", "Print the integers on one line."),
    "text": ("print(x)", "Print the result."),
    "words": ("print(*x)", "Print the words on one line."),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A step in code and in words, where K is a number from `numbers`, and the same as a function of (value, K)."""

    source: Kind
    result: Kind
    code: str
    told: str
    act: Callable[[Any, int], Any]
    numbers: tuple[int, ...] = (0,)


def _digits(x: int, k: int) -> int:
    return sum(int(d) for d in str(abs(x)))


# fmt: off
OPERATIONS = (
    Operation("numbers", "numbers", "sorted(x)", "Sort them", lambda x, k: sorted(x)),
    Operation("numbers", "numbers", "sorted(x, reverse=True)", "Sort them from the largest to the smallest",
              lambda x, k: sorted(x, reverse=True)),
    Operation("numbers", "numbers", "x[::-1]", "Reverse their order", lambda x, k: x[::-1]),
    Operation("numbers", "numbers", "[n * K for n in x]", "Multiply each by K", lambda x, k: [n * k for n in x],
              (2, 3, 4, 5, 6, 7, 8, 9)),
    Operation("numbers", "numbers", "[n + K for n in x]", "Add K to each", lambda x, k: [n + k for n in x],
              (1, 2, 3, 4, 5, 6, 7, 8, 9)),
    Operation("numbers", "numbers", "[n - K for n in x]", "Subtract K from each", lambda x, k: [n - k for n in x],
              (1, 2, 3, 4, 5, 6, 7, 8, 9)),
    Operation("numbers", "numbers", "[n % K for n in x]", "Replace each by its remainder modulo K",
              lambda x, k: [n % k for n in x], (3, 4, 5, 6, 7, 8, 9)),
    Operation("numbers", "numbers", "[n * n for n in x]", "Square each", lambda x, k: [n * n for n in x]),
    Operation("numbers", "numbers", "[abs(n) for n in x]", "Take the absolute value of each",
              lambda x, k: [abs(n) for n in x]),
    Operation("numbers", "numbers", "[n for n in x if n > K]", "Keep those greater than K",
              lambda x, k: [n for n in x if n > k], (-3, -2, -1, 0, 1, 2, 3)),
    Operation("numbers", "numbers", "[n for n in x if n % 2 == 0]", "Keep the even ones",
              lambda x, k: [n for n in x if n % 2 == 0]),
    Operation("numbers", "numbers", "[n for n in x if n % 2]", "Keep the odd ones",
              lambda x, k: [n for n in x if n % 2]),
    Operation("numbers", "numbers", "x[:K]", "Keep the first K", lambda x, k: x[:k], (2, 3, 4)),
    Operation("numbers", "numbers", "x[-K:]", "Keep the last K", lambda x, k: x[-k:], (2, 3, 4)),
    Operation("numbers", "numbers", "x[::2]", "Keep every second one, from the first", lambda x, k: x[::2]),
    Operation("numbers", "numbers", "[sum(x[: i + 1]) for i in range(len(x))]", "Replace each by the sum up to it",
              lambda x, k: [*accumulate(x)]),
    Operation("numbers", "number", "sum(x)", "Add them up", lambda x, k: sum(x)),
    Operation("numbers", "number", "max(x, default=0)", "Take the largest, or 0 if there is none",
              lambda x, k: max(x, default=0)),
    Operation("numbers", "number", "min(x, default=0)", "Take the smallest, or 0 if there is none",
              lambda x, k: min(x, default=0)),
    Operation("number", "number", "x + K", "Add K", lambda x, k: x + k, (*range(2, 20),)),
    Operation("number", "number", "x - K", "Subtract K", lambda x, k: x - k, (*range(2, 20),)),
    Operation("number", "number", "x * K", "Multiply by K", lambda x, k: x * k, (*range(2, 13),)),
    Operation("number", "number", "x // K", "Divide by K and round down", lambda x, k: x // k, (2, 3, 4, 5)),
    Operation("number", "number", "x % K", "Take the remainder modulo K", lambda x, k: x % k, (*range(11, 40),)),
    Operation("number", "number", "x * x", "Square it", lambda x, k: x * x),
    Operation("number", "number", "sum(int(d) for d in str(abs(x)))", "Add up its digits", _digits),
    Operation("text", "text", "x.upper()", "Make all letters upper case", lambda x, k: x.upper()),
    Operation("text", "text", "x.lower()", "Make all letters lower case", lambda x, k: x.lower()),
    Operation("text", "text", "x.swapcase()", "Swap upper and lower case", lambda x, k: x.swapcase()),
    Operation("text", "text", "x[::-1]", "Reverse it", lambda x, k: x[::-1]),
    Operation("text", "text", 'x.replace(" ", "")', "Remove the spaces", lambda x, k: x.replace(" ", "")),
    Operation("text", "text", 'x.replace(" ", "-")', "Replace each space by a hyphen",
              lambda x, k: x.replace(" ", "-")),
    Operation("text", "text", "x[K:]", "Remove the first K characters", lambda x, k: x[k:], (1, 2, 3, 4)),
    Operation("text", "text", "x[:-K]", "Remove the last K characters", lambda x, k: x[:-k], (1, 2, 3, 4)),
    Operation("text", "text", "x[::2]", "Keep every second character, from the first", lambda x, k: x[::2]),
    Operation("text", "text", '"".join(c for c in x if c not in "aeiou")', "Remove the letters a, e, i, o and u",
              lambda x, k: "".join(c for c in x if c not in "aeiou")),
    Operation("text", "text", '"".join(c * 2 for c in x)', "Double each character",
              lambda x, k: "".join(c * 2 for c in x)),
    Operation("text", "number", "len(x)", "Count its characters", lambda x, k: len(x)),
    Operation("text", "words", "x.split()", "Split it into words", lambda x, k: x.split()),
    Operation("words", "words", "sorted(x)", "Sort them", lambda x, k: sorted(x)),
    Operation("words", "words", "sorted(x, key=len)", "Sort them by length", lambda x, k: sorted(x, key=len)),
    Operation("words", "words", "x[::-1]", "Reverse their order", lambda x, k: x[::-1]),
    Operation("words", "words", "[w[::-1] for w in x]", "Reverse each of them", lambda x, k: [w[::-1] for w in x]),
    Operation("words", "words", "[w.upper() for w in x]", "Make each upper case", lambda x, k: [w.upper() for w in x]),
    Operation("words", "words", "[w for w in x if len(w) > K]", "Keep those with more than K letters",
              lambda x, k: [w for w in x if len(w) > k], (3, 4, 5)),
    Operation("words", "words", "[w[:K] for w in x]", "Keep the first K letters of each",
              lambda x, k: [w[:k] for w in x], (1, 2, 3)),
    Operation("words", "words", "x[1:]", "Leave out the first", lambda x, k: x[1:]),
    Operation("words", "text", '"".join(x)', "Join them without spaces", lambda x, k: "".join(x)),
    Operation("words", "text", '"+".join(x)', "Join them with plus signs", lambda x, k: "+".join(x)),
    Operation("words", "numbers", "[len(w) for w in x]", "Replace each by its number of letters",
              lambda x, k: [len(w) for w in x]),
)
# fmt: on
AFTER: Mapping[Kind, tuple[Operation, ...]] = {
    kind: tuple(each for each in OPERATIONS if each.source == kind) for kind in READ
}


@dataclass(frozen=True, slots=True)
class Program:
    """A program: what it reads, and its steps, each with its K."""

    source: Kind
    steps: tuple[tuple[Operation, int], ...]

    @property
    def result(self) -> Kind:
        """What it prints."""
        return self.steps[-1][0].result

    @property
    def text(self) -> str:
        """The program in Python."""
        lines = [f"x = {step.code.replace('K', str(k))}" for step, k in self.steps]
        return "\n".join([READ[self.source][0], *lines, PRINT[self.result][0]])

    @property
    def told(self) -> str:
        """The program in words."""
        told = [step.told.replace(" K", f" {k}") for step, k in self.steps]
        later = [f"Then {each[0].lower()}{each[1:]}" for each in told[1:]]
        sentences = [f"{each}." for each in [told[0], *later]]
        return " ".join([READ[self.source][1], *sentences, PRINT[self.result][1]])

    def output(self, line: str) -> str:
        """What it prints for a line of input."""
        return show(self.values(line)[-1])

    def repeats(self, line: str) -> bool:
        """Whether the output for a line gives the same output again, as with sorting."""
        output = self.output(line)
        try:
            return self.output(output) == output
        except ValueError:  # it is no input of the program
            return False

    def values(self, line: str) -> list[Any]:
        """The value that is read, and the value after each step."""
        values = [parse(self.source, line)]
        for step, k in self.steps:
            values.append(step.act(values[-1], k))
        return values


def parse(kind: Kind, line: str) -> Any:
    """What a program reads from a line of input."""
    if kind == "number":
        return int(line)
    if kind == "numbers":
        return [int(each) for each in line.split()]
    return line.split() if kind == "words" else line


def show(value: Any) -> str:
    """What a program prints of a value."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def draw_input(kind: Kind, rng: Random) -> str:
    """A random line of input."""
    if kind == "number":
        return str(rng.randint(-99, 999))
    if kind == "numbers":
        return " ".join(str(rng.randint(-9, 30)) for _ in range(rng.randint(4, 7)))
    return " ".join(rng.sample(WORDS, rng.randint(3, 5)))


def draw_inputs(kind: Kind, count: int, rng: Random) -> list[str]:
    """`count` distinct lines of input."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw_input(kind, rng)] = None
    return [*found]


def draw_program(rng: Random, steps: int) -> Program:
    """A random program of at most `steps` steps that no fixed guess answers."""
    for _ in range(ATTEMPTS):
        kinds: tuple[Kind, ...] = tuple(READ)
        source = rng.choice(kinds)
        kind, chosen = source, []
        for _ in range(rng.randint(1, steps)):
            step = rng.choice(AFTER[kind])
            chosen.append((step, rng.choice(step.numbers)))
            kind = step.result
        program = Program(source, tuple(chosen))
        if _worth(program, draw_inputs(source, INPUTS, rng)):
            return program
    raise AssertionError("programs that depend on their input are not rare")


def _worth(program: Program, lines: list[str]) -> bool:
    values = [program.values(line) for line in lines]
    outputs = [show(each[-1]) for each in values]
    repeated = any(a == b for a, b in zip(program.steps, program.steps[1:], strict=False))
    changed = all(
        sum(each[place] != each[place + 1] for each in values) > INPUTS / 2
        for place in range(len(program.steps))
    )
    short = all(0 < len(each) <= 80 for each in outputs)
    return len(set(outputs)) >= OUTPUTS and changed and short and not repeated


def any_program(program: Program) -> bool:
    """True."""
    return True


def draw_distinct(
    rng: Random,
    steps: int,
    counts: Mapping[str, int],
    keep: Callable[[Program], bool] = any_program,
) -> dict[str, list[Program]]:
    """`counts[split]` programs that `keep` accepts for each split, none twice, in a split or between splits."""
    seen: set[str] = set()
    draw = partial(draw_program, rng, steps)
    splits: dict[str, list[Program]] = {}
    for split, count in counts.items():
        found: list[Program] = []
        while len(found) < count:
            for _ in range(ATTEMPTS):
                program = draw()
                if program.told not in seen and keep(program):
                    break
            else:
                raise ValueError(f"there are not {sum(counts.values())} programs of {steps} steps")
            seen.add(program.told)
            found.append(program)
        splits[split] = found
    return splits

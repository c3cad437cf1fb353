"""The one scorer of answers to FinQA questions.

An answer is one JSON object, with the program as a list of steps and its value as text:

    {"program": ["subtract(5829, 5735)", "divide(#0, 5735)"], "answer": "0.01639"}

Pools, training and evaluation all call `score`. Its execution and program verdicts are the FinQA paper's (official.py)
for every program that our parser accepts; a program that only the script's token reader accepts ("-#0", a step cut off
at the end) is invalid here. References (`B3`, `T1`) are resolved first, so a program in cells and the same program in
literals get the same verdicts. Further verdicts are on the stated answer: strict, lenient, and within a tolerance.

Thoughts between <think> and </think> are no part of an answer (`texts.without_thoughts`).

Left out: statistics over many scores (`measures`), and the treatment of answers that are unparseable or unscorable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks import Score
from posttrain.tasks.finqa.official import equal_to_gold
from posttrain.tasks.finqa.program import (
    Answer,
    ExecutionError,
    Program,
    ProgramError,
    execute,
    parse,
    parse_answer,
    render,
    resolve,
)
from posttrain.tasks.texts import plain, without_thoughts

FAILURES = (
    "unscorable",
    "unparseable",
    "invalid_program",
    "unknown_reference",
    "execution_error",
    "wrong_program",
    "wrong_answer_only",
)
PARTS = ("exact_match", "numeric_close", "program_valid", "format_valid")
MAX_CHARACTERS = 1_000_000
MAX_DECODED = 2_000_000  # characters decoded in vain
LENIENT_RELATIVE_ERROR = 0.05

_FIELDS = ("exe_ans", "literal_program", "table", "references", "operands", "tolerance")
_REFERENCE = re.compile(r"[A-Z]{1,3}[0-9]+")
_OPENING = re.compile(r'\{(?=\s*["}])')
_DECIMALS = re.compile(r"\.([0-9]*)")


@dataclass(frozen=True, slots=True)
class FinqaScore(Score):
    """A score with the program in literals, None where there is none.

    value: of the program. answer: as stated. status: unscorable if the example's own gold program does not give its
    exe_ans. correct, program_correct: the official verdicts. parts, each 0 or 1:

        exact_match      correct
        numeric_close    the stated answer is within the tolerance
        program_valid    the program parses and executes to a finite number, yes or no
        format_valid     the text has exactly the form asked for

    answer_strict: the stated answer rounded to 5 decimals is exe_ans. answer_lenient: the stated answer is exe_ans, 100
    times it or a hundredth of it, rounded to as many decimals as the answer has and at most 5 % away; the sign must be
    right. self_consistent: the stated answer rounded to 5 decimals is the program's own value. failure: the first of
    `FAILURES` that applies; None for a right program with a right answer.
    """

    program: str | None = None


def score(text: str | bytes, example: Mapping[str, Any]) -> FinqaScore:
    """Score one answer to one example.

    text: any text gets a score, in bounded time. example: has at least exe_ans, literal_program, table, references,
    operands and tolerance (relative, for numeric_close: 0.01 accepts 1 % of exe_ans either way). `UserError` if the
    example lacks a field, never for the text.
    """
    for field in _FIELDS:
        if field not in example:
            raise UserError(f"example {example.get('id')!r} has no field {field!r}")
    expected: Answer = example["exe_ans"]
    if not _scorable(example):
        return _unscored("unscorable")
    found = read_answer(text)
    if found is None:
        return _unscored("unparseable")
    program_text, answer_text, format_valid = found
    answer = None if answer_text is None else parse_answer(answer_text)

    literal: str | None = None
    value: Answer | None = None
    execution_correct = program_correct = False
    failure: str | None = None
    try:
        program = _literal(program_text, example)
        literal = render(program)
        program_correct = equal_to_gold(program, example["literal_program"])
        value = execute(program, example["table"])
        execution_correct = value == expected
    except ProgramError:
        failure = "invalid_program"
    except ExecutionError:
        failure = (
            "unknown_reference" if _has_unknown_reference(program, example) else "execution_error"
        )
    if isinstance(value, float) and not math.isfinite(value):
        value, failure = None, "execution_error"

    strict = _equal(answer, expected)
    if failure is None and not execution_correct:
        failure = "wrong_program"
    if failure is None and not strict:
        failure = "wrong_answer_only"
    form = {"program_valid": float(value is not None), "format_valid": float(format_valid)}
    return FinqaScore(
        correct=execution_correct,
        parts={
            "exact_match": float(execution_correct),
            "numeric_close": float(strict or _close(answer, expected, example["tolerance"])),
            **form,
        },
        quality=form,
        program=literal,
        value=value,
        answer=answer,
        program_correct=program_correct,
        answer_strict=strict,
        answer_lenient=strict
        or (answer_text is not None and _lenient(plain(answer_text), answer, expected)),
        self_consistent=value is not None and _equal(answer, value),
        failure=failure,
    )


def read_answer(text: str | bytes) -> tuple[str, str | None, bool] | None:
    """(program text, answer text or None, whether the text has exactly the form asked for); None if unparseable.

    The answer is the first JSON object that has a program, a text or a list of texts: anywhere in the text, also inside
    other objects and lists, but not inside a JSON string. Accepted, but not as the form asked for: text around the
    object or around the one that it is in, other keys, repeated keys (the last one counts), the program as one text,
    the answer as a number or missing. Unparseable is a text without such an object, one over `MAX_CHARACTERS`, and one
    whose broken objects take over `MAX_DECODED` characters.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    text = without_thoughts(text)
    if len(text) > MAX_CHARACTERS:
        return None
    for found, alone in _objects(text):
        program = found.get("program")
        if isinstance(program, list) and all(type(step) is str for step in program):
            program_text, exact = ", ".join(program), alone
        elif type(program) is str:
            program_text, exact = program, False
        else:
            continue
        answer = found.get("answer")
        if type(answer) is not str:
            return program_text, str(answer) if isinstance(answer, _Number) else None, False
        asked = found.keys() == {"program", "answer"} and not found.repeated
        return program_text, answer, exact and asked
    return None


class _Number(str):
    """A JSON number as text, so that 5,000 digits do not become an int, nor NaN a float."""


class _Object(dict[str, Any]):
    repeated = False


class _Text(str):
    """A text in which `json.JSONDecodeError` counts no lines, so that an error takes as long as what was decoded."""

    def count(self, *_: Any) -> int:
        return 0

    def rfind(self, *_: Any) -> int:
        return -1


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object(pairs)
    result.repeated = len(result) != len(pairs)
    return result


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_Number, parse_float=_Number, parse_constant=_Number
)


def _objects(text: str) -> Iterator[tuple[_Object, bool]]:
    """Each JSON object in the text, in the order of the opening braces, and whether the text is that object alone."""
    text = _Text(text.strip(" \t\n\r"))
    decoded, end = 0, 0
    while (brace := _OPENING.search(text, end)) and decoded <= MAX_DECODED:
        position = brace.start()
        try:
            value, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            # An unterminated string is read to the end, but its error has the position where it begins.
            unterminated = error.msg.startswith("Unterminated")
            decoded += (len(text) if unterminated else error.pos) - position
            end = position + 1
        except RecursionError:
            decoded += len(text) - position
            end = position + 1
        else:
            yield value, position == 0 and end == len(text)
            yield from ((inner, False) for inner in _inside(value))


def _inside(value: _Object) -> Iterator[_Object]:
    """The objects inside an object, in the order of their opening braces."""
    rest: list[Any] = [*reversed(value.values())]
    while rest:
        item = rest.pop()
        if isinstance(item, _Object):
            yield item
            rest += reversed(item.values())
        elif isinstance(item, list):
            rest += reversed(item)


def _unscored(status: str) -> FinqaScore:
    form = dict.fromkeys(("program_valid", "format_valid"), 0.0)
    return FinqaScore(False, dict.fromkeys(PARTS, 0.0), status, quality=form)


def _scorable(example: Mapping[str, Any]) -> bool:
    expected = example["exe_ans"]
    if isinstance(expected, bool) or not isinstance(expected, int | float | str):
        return False
    if not isinstance(example["literal_program"], str):
        return False
    try:
        gold = execute(_parsed(example["literal_program"]), example["table"])
    except (ProgramError, ExecutionError):
        return False
    return gold == expected


@lru_cache(maxsize=1 << 15)
def _parsed(text: str) -> Program:
    return parse(text)


def _literal(program_text: str, example: Mapping[str, Any]) -> Program:
    program = parse(program_text)
    return resolve(program, example["references"]) if example["operands"] == "cells" else program


def _has_unknown_reference(program: Program, example: Mapping[str, Any]) -> bool:
    """Whether an operand that `resolve` did not replace looks like a reference to the sheet."""
    if example["operands"] != "cells":
        return False
    labels = {row[0] for row in example["table"] if row}
    operands = (operand for step in program for operand in (step.arg1, step.arg2))
    return any(_REFERENCE.fullmatch(operand) and operand not in labels for operand in operands)


def _equal(answer: Answer | None, expected: Answer) -> bool:
    if answer is None or isinstance(answer, str) or isinstance(expected, str):
        return answer == expected
    return round(answer, 5) == expected


def _close(answer: Answer | None, expected: Answer, tolerance: float) -> bool:
    if answer is None or isinstance(answer, str) or isinstance(expected, str):
        return answer == expected
    return abs(answer - expected) <= tolerance * abs(expected)


def _lenient(text: str, answer: Answer | None, expected: Answer) -> bool:
    if answer is None or isinstance(answer, str) or isinstance(expected, str):
        return answer == expected
    if answer * expected <= 0 or "e" in text.lower():
        return False
    decimals = _DECIMALS.search(text)
    unit = 10.0 ** -min(len(decimals[1]) if decimals else 0, 300)
    stated = answer * 100.0 if "%" in text else answer
    for scale in (1.0, 100.0, 0.01):
        error = abs(stated - expected * scale)
        allowed = min(unit / 2, LENIENT_RELATIVE_ERROR * abs(expected * scale))
        if error <= allowed * (1 + 1e-9) or _equal(stated / scale, expected):
            return True
    return False

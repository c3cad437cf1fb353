"""The one scorer of answers to GSM8K problems.

An answer is `correct` if the number after `#### ` equals the gold answer; `answer_lenient` judges the last number of
the text instead, also where there is no `#### `. Calculator steps are executed, never evaluated as code; `reading` says
how they and the final number are read.

    program_correct      the final number is right, there are steps, each is arithmetically right, and the last one
                         gives the final number
    self_consistent      the last step gives the final number, right or wrong
    parts                exact_match, numeric_close: of the final number; program_valid: there are steps, and each is
                         right; format_valid: reasoning, then one line `#### number` and nothing after it
    quality              program_valid: share of the steps that are right; format_valid: as above; steps_used: share of
                         the steps whose result a later step or the final number uses; no_repetition: share of the
                         lines that repeat no earlier one. (Brevity is measured in `rollouts.preferences`)
    status               unparseable: no number after `#### `, or over `MAX_CHARACTERS`; unscorable: the example's own
                         answer is no number
    value, answer        the number after `#### `, by which a majority is counted
    failure              the first of `FAILURES` that applies; for a right answer wrong_steps_only or None

A step is right if its result is the expression's value, or that rounded to the last digit written and at most 1 % off.

Left out: whether the words fit the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks import Score
from posttrain.tasks.gsm8k.arithmetic import agrees, read_number
from posttrain.tasks.gsm8k.reading import (
    MARK,
    Step,
    answer_of,
    flexible_answer,
    read_steps,
    strict_answer,
)
from posttrain.tasks.texts import plain

FAILURES = (
    "unscorable",
    "unparseable",
    "no_steps",
    "invalid_step",
    "wrong_arithmetic",
    "inconsistent_answer",
    "wrong_answer",
    "wrong_steps_only",
)
PARTS = ("exact_match", "numeric_close", "program_valid", "format_valid")
QUALITY = ("program_valid", "format_valid", "steps_used", "no_repetition")
MAX_CHARACTERS = 100_000

_FIELDS = ("target_answer", "annotations", "tolerance")
_LAST_LINE = re.compile(r"#### -?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_OPERAND = re.compile(r"\d+\.?\d*|\.\d+")


def score(text: str | bytes, example: Mapping[str, Any]) -> Score:
    """Score one answer to one example.

    text: any text gets a score, in time linear in its length. The example's `tolerance` is relative, for numeric_close.
    `UserError` if the example lacks a field, never for the text.
    """
    for field in _FIELDS:
        if field not in example:
            raise UserError(f"example {example.get('id')!r} has no field {field!r}")
    expected = read_number(str(example["target_answer"]))
    if expected is None:
        return _unscored("unscorable")
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    text = answer_of(text, example["annotations"])
    if len(text) > MAX_CHARACTERS:
        return _unscored("unparseable")
    last = flexible_answer(text)
    lenient = last is not None and read_number(last) == expected
    written = strict_answer(text)
    answer = None if written is None else read_number(written)
    if written is None or answer is None:
        return _unscored("unparseable", lenient)
    steps = read_steps(text, example["annotations"])
    right = answer == expected
    valid = bool(steps) and all(step.right for step in steps)
    consistent = bool(steps) and _gives(steps[-1], written)
    form = _format_valid(text)
    close = abs(answer - expected) <= Fraction(example["tolerance"]) * abs(expected)
    return Score(
        correct=right,
        parts={
            "exact_match": float(right),
            "numeric_close": float(right or close),
            "program_valid": float(valid),
            "format_valid": float(form),
        },
        quality={
            "program_valid": sum(step.right for step in steps) / max(1, len(steps)),
            "format_valid": float(form),
            "steps_used": _used(steps, written) / max(1, len(steps)),
            "no_repetition": _distinct(text),
        },
        value=float(answer),
        answer=float(answer),
        program_correct=right and valid and consistent,
        answer_strict=right,
        answer_lenient=lenient,
        self_consistent=consistent,
        failure=_failure(right, steps, consistent),
    )


def _failure(right: bool, steps: Sequence[Step], consistent: bool) -> str | None:
    if right:
        return None if all(step.right for step in steps) else "wrong_steps_only"
    if not steps:
        return "no_steps"
    if any(step.value is None for step in steps):
        return "invalid_step"
    if not all(step.right for step in steps):
        return "wrong_arithmetic"
    return "wrong_answer" if consistent else "inconsistent_answer"


def _gives(step: Step, number: str) -> bool:
    return step.value is not None and agrees(number.replace(",", "").rstrip("."), step.value)


def _format_valid(text: str) -> bool:
    reasoning, newline, last = text.rpartition("\n")
    single = text.count(MARK.strip()) == 1
    return bool(newline and reasoning.strip() and single and _LAST_LINE.fullmatch(plain(last)))


def _used(steps: Sequence[Step], answer: str) -> int:
    """The number of steps whose result a later step or the final number uses."""
    needed: set[Fraction | None] = {read_number(answer)}
    used = 0
    for step in reversed(steps):
        result = read_number(step.stated)
        used += result is not None and (result in needed or _gives(step, answer))
        needed |= {read_number(operand) for operand in _OPERAND.findall(step.expression)}
    return used


def _distinct(text: str) -> float:
    lines = [line for line in text.split("\n") if line.strip()]
    return len(set(lines)) / max(1, len(lines))


def _unscored(status: str, lenient: bool = False) -> Score:
    parts, quality = dict.fromkeys(PARTS, 0.0), dict.fromkeys(QUALITY, 0.0)
    return Score(False, parts, status, answer_lenient=lenient, quality=quality)

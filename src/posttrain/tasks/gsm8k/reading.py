"""Reading an answer: its calculator steps and its final number.

    Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether.
    #### 72

The final number is read in the two usual ways, as by Cobbe et al.'s script and by the filters `strict-match` and
`flexible-extract` of lm-evaluation-harness: the first number after `#### `, and the last number of the text. Thousands
commas, a full stop and words or units after the number are ignored in both (72 in "72 clips" and "72%", 5 in "5
million"), a currency sign before it in the second only: `#### $72` has no number. Unlike those, which compare text,

* numbers are compared as numbers: 18 and 18.00 are equal;
* no number is read by half: "1/2", "2 1/2", "10:30", "1 234", "1,5", "1e3", "5-6" and "48 + 24" are none;
* a minus may be any of Unicode's, and a no-break or thin space may separate thousands.

Thoughts between <think> and </think> are no part of an answer (`texts.without_thoughts`).

A gold answer is a number, with a currency sign or without, and nothing else after `#### ` on its last line.

The data set's option `annotations` says how steps are read:

    keep       a step is an annotation, with its expression and the result stated in it
    strip      answers have no annotations; a step is an equation of the text, "48/2 = 24"
    execute    as keep, but the calculator has the last word, as when Cobbe et al. sample: a result that is not the
               value of its expression is replaced by that value, in the annotation, right after it, and wherever a
               later annotation or the final line states the same number
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from posttrain.tasks.gsm8k.arithmetic import (
    InvalidExpression,
    agrees,
    evaluate,
    format_number,
    read_number,
)
from posttrain.tasks.gsm8k.options import Annotations
from posttrain.tasks.texts import CURRENCIES, SPACES, plain, without_thoughts

MARK = "#### "
ANNOTATION = re.compile(r"<<([^<>\n]{0,120})>>")

# A number with all that is joined to it, and so is one number (1,234) or none (1/2).
_NUMERAL = (
    (
        r"\.?\d(?:[\d¼-¾⅐-⅞²³¹⁰-⁹]|[.,:'’_٬٫](?=\d)|\\,(?=\d)|\{,\}(?=\d)| : (?=\d)"
        r"|[eE][-+]?(?=\d)|[ S]?[-+*/x×÷⁄∕^][ S]?[-C]?(?=\.?\d)"
        r"|[S](?=\d)|(?<!\d{4}) (?=\d{3}(?!\d)|\d{1,9}[/⁄∕]\d|[¼-¾⅐-⅞]))*\.?"
    )
    .replace("S", SPACES)
    .replace("C", CURRENCIES)
)
_STRICT = re.compile(rf"#### (-?{_NUMERAL})")
_FLEXIBLE = re.compile(rf"(?:-?[{CURRENCIES}] ?|-)?{_NUMERAL}")
# In "6 * 4 + 2 = 24 + 2" the number is no result, but the beginning of another expression.
_RESULT = re.compile(
    r"=\s*\$?\s*(-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+))(?![\d,.]?\d)(?!\s*[-+*/x×÷]\s*[\d$(])"
    r"(?! (?:000(?!\d)|\d{1,9}/\d))"
)
_UNKNOWN = re.compile(r"[-+*/(][+*/]")  # in "6x+12" x is no multiplication
_CLAUSE = re.compile(r"[,.:;]\s")
_NUMBER = re.compile(r"\d+\.?\d*|\.\d+")
_EXPRESSION = " \t$.,()+-*/x×÷0123456789"
_SIGNS = str.maketrans({"x": "*", "×": "*", "÷": "/", "$": " "})
_THOUSANDS = re.compile(rf"(?<!\d{{4}})(?<=\d)[ ,{SPACES}](?=\d{{3}}(?!\d))")
_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Step:
    """One calculation as written; `value` is that of its expression, or None for the reason in `error`."""

    expression: str
    stated: str
    value: Fraction | None
    error: str | None = None

    @property
    def right(self) -> bool:
        return self.value is not None and agrees(self.stated, self.value)


def read_steps(text: str, annotations: Annotations) -> list[Step]:
    """The calculations of an answer, in its order."""
    text = plain(text)
    if annotations == "strip":
        return _equations(text)
    steps = [_step(match[1]) for match in ANNOTATION.finditer(text)]
    if text.count("<<") != len(steps):
        steps.append(Step("", "", None, "an annotation is not closed, or too long"))
    return steps


def strict_answer(text: str) -> str | None:
    """The number after the first `#### ` that has one, as written but for its minus; None if it cannot be read."""
    match = _STRICT.search(plain(text))
    return match[1] if match and read_number(match[1]) is not None else None


def flexible_answer(text: str) -> str | None:
    """The last thing in the text that has digits, as written but for its minus; None if it is not one number."""
    last = deque(_FLEXIBLE.finditer(plain(text)), maxlen=1)
    return last[0][0] if last and read_number(last[0][0]) is not None else None


def gold_answer(answer: str) -> Fraction | None:
    """The number of a gold answer; None if its last line is not `#### ` and a number."""
    last = answer.strip().rpartition("\n")[2]
    return read_number(last.removeprefix(MARK)) if last.startswith(MARK) else None


def strip(text: str) -> str:
    """The text without annotations."""
    return ANNOTATION.sub("", text)


def answer_of(text: str, annotations: Annotations) -> str:
    """A text without the thoughts before its answer, executed if `annotations` says so."""
    text = without_thoughts(text)
    return execute(text) if annotations == "execute" else text


def execute(text: str) -> str:
    """The text with the calculator's results in place of the stated ones."""
    replaced: dict[Fraction | None, str] = {}
    pieces = []
    end = 0
    for match in ANNOTATION.finditer(text):
        expression, equals, stated = match[1].rpartition("=")
        expression = _NUMBER.sub(lambda found: _latest(found[0], replaced), expression)
        pieces.append(text[end : match.start()])
        end = match.end()
        value = _value(expression)
        if value is None or (number := read_number(stated)) is None:
            pieces.append(f"<<{expression}{equals}{stated}>>")
            continue
        result = stated if agrees(stated, value) else format_number(value)
        pieces.append(f"<<{expression}={result}>>")
        if result != stated:
            replaced[number] = result
            if text.startswith(stated, end):
                pieces.append(result)
                end += len(stated)
    rest = text[end:]
    last = _STRICT.search(plain(rest))
    if last and (number := read_number(last[1])) in replaced:
        rest = f"{rest[: last.start(1)]}{replaced[number]}{rest[last.end(1) :]}"
    return "".join([*pieces, rest])


def _latest(written: str, replaced: Mapping[Fraction | None, str]) -> str:
    return replaced.get(read_number(written), written)


def _step(note: str) -> Step:
    expression, equals, stated = note.rpartition("=")
    if not equals:
        return Step(note, "", None, "no result stated")
    try:
        return Step(expression, stated, evaluate(expression))
    except InvalidExpression as error:
        return Step(expression, stated, None, str(error))


def _value(expression: str) -> Fraction | None:
    try:
        return evaluate(expression)
    except InvalidExpression:
        return None


def _equations(text: str) -> list[Step]:
    """The equations that have an operator and whose left side can be read; others are prose."""
    steps = []
    for match in _RESULT.finditer(text):
        left = text[max(0, match.start() - _WIDTH) : match.start()]
        left = left[len(left.rstrip(_EXPRESSION)) :]
        left = _CLAUSE.split(left)[-1].lstrip(" \t$,)")
        if left.startswith(tuple("+-*/x×÷")):  # it begins in words
            continue
        expression = _THOUSANDS.sub("", left).translate(_SIGNS)
        value = _value(expression)  # none for "8 * 1 1/2"
        expression = "".join(expression.split())
        arithmetic = not _NUMBER.fullmatch(expression) and not _UNKNOWN.search(expression)
        if value is not None and arithmetic:
            steps.append(Step(expression, match[1].replace(",", ""), value))
    return steps

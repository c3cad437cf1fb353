"""The verdicts of the FinQA paper's script (`code/evaluate/evaluate.py` of czyssrs/FinQA), one row at a time.

    tokens = ["divide(", "128", "1018", ")", "EOF"]
    qa = row["qa"]
    execution, program = official_verdict(tokens, qa["program"], qa["exe_ans"], row["table"])

* execution correct: the tokens execute, and the result rounded to 5 decimals `==` exe_ans.
* program correct: the tokens are symbolically equal to the gold program (equivalence.py), whatever they execute to.

The script's oddities are kept, because published scores contain them: the last token is dropped unread; tokens are
joined by "|" and split again at ")"; table operations on `#k` reuse an earlier row; unused steps do not count in
program equality; and a table step in the first position never equals one in a later position.

All differences are in cases where the script gives no verdict. It aborts the whole evaluation if a program is equal but
its result is not exe_ans (here the two verdicts stay as they are), and if the gold program cannot be read (here program
correct is False). Sizes are bounded (program.py, equivalence.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from posttrain.tasks.finqa.equivalence import Gold, Step, equivalent, prepare_gold
from posttrain.tasks.finqa.program import (
    ARITHMETIC,
    OPERATIONS,
    TABLE_OPERATIONS,
    ExecutionError,
    Program,
    Table,
    aggregate,
    apply,
    finish,
    number,
    row_numbers,
    run,
    table_rows,
)

_TOKEN = re.compile(r"[^()]*\(|\)|[^()]+")
_OPENINGS = {f"{op}(": op for op in OPERATIONS}


class _MalformedError(ValueError):
    """The tokens cannot be read as steps, a case that the script catches with a bare `except`."""


def tokenize(program_text: str) -> list[str]:
    """A program's text as the script's tokens: "add(1, 2)" -> ["add(", "1", "2", ")", "EOF"]."""
    tokens = [token for piece in program_text.split(", ") for token in _TOKEN.findall(piece)]
    tokens.append("EOF")
    return tokens


def execute_tokens(tokens: Sequence[str], table: Table) -> tuple[bool, float | str | None]:
    """(invalid, result): the result is a number rounded to 5 decimals, "yes" or "no"; None if invalid.

    Tokens without any step are valid, with the result "n/a", as in the script.
    """
    return _execute(tokens, _aligned(tokens), table)


def official_verdict(
    predicted_tokens: Any, gold_program: str, exe_ans: float | str, table: Table
) -> tuple[bool, bool]:
    """(execution correct, program correct) of one prediction, tokens with their final "EOF".

    predicted_tokens: as in a predictions file; anything but a list of strings is wrong, not an error. gold_program:
    `qa.program` of the row. exe_ans: `qa.exe_ans`. table: rows of strings, the row label first.
    """
    aligned = _aligned(predicted_tokens)
    invalid, result = _execute(predicted_tokens, aligned, table)
    execution_correct = not invalid and bool(result == exe_ans)
    gold = _gold(gold_program) if isinstance(gold_program, str) else None
    if gold is None:
        return execution_correct, False
    if aligned is not None:
        return execution_correct, equivalent(gold, _named(aligned, predicted_tokens))
    try:
        steps = _read_steps(_structured(predicted_tokens))
    except _MalformedError:
        return execution_correct, False
    return execution_correct, equivalent(gold, steps)


def equal_to_gold(program: Program, gold_program: str) -> bool:
    """The verdict "program correct" on a parsed program: as `official_verdict`, without executing it."""
    gold = _gold(gold_program)
    return gold is not None and equivalent(gold, _named([(s.op, s.arg1, s.arg2) for s in program]))


def _execute(
    tokens: Sequence[str], aligned: list[tuple[str, str, str]] | None, table: Table
) -> tuple[bool, float | str | None]:
    try:
        if aligned is not None:
            return False, finish(run(aligned, table))
        return False, _execute_loosely(_structured(tokens), table)
    except (ExecutionError, _MalformedError):
        return True, None


def _aligned(tokens: Sequence[str]) -> list[tuple[str, str, str]] | None:
    """The steps of tokens that come in clean groups of four; None for others, which need a full parse."""
    if tokens.__class__ is not list:
        return None
    size = len(tokens) - 1
    if size < 4 or size % 4:
        return None
    steps = []
    try:
        for index in range(0, size, 4):
            arg1, arg2 = tokens[index + 1], tokens[index + 2]
            if tokens[index + 3] != ")" or not arg1 or not arg2:
                return None
            steps.append((_OPENINGS[tokens[index]], arg1.strip(), arg2.strip()))
        operands = "".join(tokens[1:size:4]) + "".join(tokens[2:size:4])
    except (KeyError, TypeError, AttributeError):
        return None
    return None if "(" in operands or ")" in operands or "|" in operands else steps


def _named(
    aligned: Sequence[tuple[str, str, str]], tokens: Sequence[str] | None = None
) -> list[Step]:
    """The steps with the joined text that names a table step, which includes the "|" before all but the first.

    tokens: the operands with the spaces around them, which are part of the text too.
    """
    steps: list[Step] = []
    for index, (op, arg1, arg2) in enumerate(aligned):
        text = ""
        if op not in ARITHMETIC:
            one, two = (arg1, arg2) if tokens is None else tokens[4 * index + 1 : 4 * index + 3]
            text = f"{'|' if index else ''}{op}(|{one}|{two}|"
        steps.append((op, arg1, arg2, text))
    return steps


def _structured(tokens: Sequence[str]) -> list[str]:
    """The texts of the steps, after the script's check of every fourth token."""
    try:
        body = tokens[:-1]
        for index, token in enumerate(body):
            if index % 4 == 0 and token.strip("(") not in OPERATIONS:
                raise _MalformedError("not an operation")
            if index % 4 == 3 and token != ")":
                raise _MalformedError("not a closing parenthesis")
        return _split_steps(body)
    except (TypeError, AttributeError, KeyError) as error:
        raise _MalformedError("not a list of strings") from error


def _split_steps(body: Sequence[str]) -> list[str]:
    return [step.strip() for step in "|".join(body).split(")")[:-1]]


def _read_step(text: str) -> Step:
    parts = text.split("(")
    if len(parts) != 2:
        raise _MalformedError("not one opening parenthesis")
    operands = parts[1].strip("|").strip().split("|")
    if len(operands) < 2:
        raise _MalformedError("fewer than two operands")
    return parts[0].strip("|").strip(), operands[0].strip(), operands[1].strip(), text


def _read_steps(texts: Sequence[str]) -> list[Step]:
    return [_read_step(text) for text in texts]


@lru_cache(maxsize=1 << 15)
def _gold(program_text: str) -> Gold | None:
    try:
        steps = _read_steps(_split_steps(tokenize(program_text)[:-1]))
    except _MalformedError:
        return None
    return prepare_gold(steps) if steps else None


def _execute_loosely(texts: Sequence[str], table: Table) -> float | str:
    """Execute steps whose operation may be anything, from misplaced tokens; an unknown one leaves the result as it was."""
    results: dict[int, Any] = {}
    current: Any = "n/a"
    numbers: list[float] | None = None
    for index, text in enumerate(texts):
        op, arg1, arg2, _ = _read_step(text)
        if op in ARITHMETIC:
            left, right = (
                _earlier(results, name) if "#" in name else number(name) for name in (arg1, arg2)
            )
            current = results[index] = apply(op, left, right)
        elif "table" in op:
            rows = table_rows(table)
            if "#" in arg1:
                _earlier(results, arg1)
            elif arg1 in rows:
                numbers = row_numbers(rows[arg1])
            else:
                raise _MalformedError("no such row")
            if numbers is None:
                raise _MalformedError("no row before it")
            if op in TABLE_OPERATIONS:
                current = aggregate(op, numbers)
            results[index] = current
    return "n/a" if isinstance(current, str) and current == "n/a" else finish(current)


def _earlier(results: dict[int, Any], name: str) -> Any:
    try:
        return results[int(name.replace("#", ""))]
    except (ValueError, KeyError) as error:
        raise _MalformedError("no such step") from error

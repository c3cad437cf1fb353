"""FinQA programs: text -> steps -> value, in bounded time and size, whatever the input.

A program is a list of steps `operation(operand, operand)` joined by ", "; its value is that of its last step:

    subtract(5829, 5735), divide(#0, 5735)        #0 is the result of step 0
    table_sum(net revenue, none)                  table operations name a row of the page's table

Operands are numbers as the page prints them (`5829`, `5,829`, `2.5%` = 0.025), constants (`const_100`, `const_m1` =
-1), results of earlier steps (`#0`), row labels or, on a page shown as a sheet, references (`B3`, `T1`, `A3`) that
`resolve` replaces.

The values are those of the FinQA paper's script: for every program that `parse` accepts, `execute` returns exactly the
script's value, or raises where the script says invalid. This includes oddities: a table operation on `#k` reuses the
row of the table operation before it, and `add` concatenates the answers of two `greater`. The script has no bounds;
here a program is limited to `MAX_STEPS` steps, a concatenation to `MAX_TEXT` characters and an integer to `MAX_BITS`
bits (integers come from empty rows only).

The script's tokenizer splits at ", " and parentheses, so row labels with these cannot be operands: `parse` and
`resolve` refuse them, as the script calls such programs invalid.

Left out: the verdicts (official.py) and answers as a model writes them (score.py).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks.texts import CURRENCIES, SEPARATORS, UNSIGNED, plain

MAX_STEPS = 10_000
MAX_CHARACTERS = 1_000_000
MAX_TEXT = 1 << 16
MAX_BITS = 4096

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": operator.pow,
    "greater": operator.gt,
}
TABLE_OPERATIONS = ("table_max", "table_min", "table_sum", "table_average")
OPERATIONS = (*ARITHMETIC, *TABLE_OPERATIONS)
CONSTANTS: dict[str, float] = {
    **{
        f"const_{n}": float(n)
        for n in (*range(1, 11), 12, 100, 1000, 10000, 100000, 1000000, 1000000000)
    },
    "const_m1": -1.0,
}

Answer = float | str  # the text is "yes" or "no"
Table = Sequence[Sequence[str]]

_STEP = re.compile(r"([^()|,]*)\(([^()]*)\)")
_REFERENCE = re.compile(r"#[0-9]+")
_STATED = re.compile(
    rf"(?:([-+]?) ?(?:[{CURRENCIES}] ?)?|[{CURRENCIES}] ?([-+]) ?)({UNSIGNED}(?:\.?e[-+]?\d+)?)"
    rf"(?: ?\.)? ?[{CURRENCIES}]? ?(%?)"
)


class ProgramError(UserError, ValueError):
    """The text is not a program.

    reason: empty, too_long, missing_parenthesis, unknown_operation, wrong_arity, bad_operand, forward_reference or
    bad_separator.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ExecutionError(UserError, ValueError):
    """The program has no value.

    reason: unknown_row, not_a_number, division_by_zero, overflow, type, complex, forward_reference, bad_table,
    empty_row, no_row, unknown_operation or empty.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on two operands; the operands are text without surrounding spaces."""

    op: str
    arg1: str
    arg2: str


Program = tuple[Step, ...]


def parse(text: str) -> Program:
    """The steps of a program's text; `ProgramError` if the official tokenizer would not find steps in it."""
    if not isinstance(text, str):
        raise ProgramError("empty", f"a program is text, not {type(text).__name__}")
    if not text.strip():
        raise ProgramError("empty", "the program is empty")
    if len(text) > MAX_CHARACTERS:
        raise ProgramError(
            "too_long", f"the program has {len(text)} characters, more than {MAX_CHARACTERS}"
        )
    steps: list[Step] = []
    position = 0
    while True:
        match = _STEP.match(text, position)
        if match is None:
            raise ProgramError(
                "missing_parenthesis",
                f"step {len(steps)}: no operation(operand, operand) at {_shorten(text, position)}",
            )
        if len(steps) == MAX_STEPS:
            raise ProgramError("too_long", f"the program has more than {MAX_STEPS} steps")
        op = match[1]
        if op not in OPERATIONS:
            raise ProgramError(
                "unknown_operation", f"step {len(steps)}: unknown operation {_shorten(op)}"
            )
        operands = match[2].split(", ")
        if len(operands) != 2:
            raise ProgramError(
                "wrong_arity",
                f"step {len(steps)}: {op} takes 2 operands, not {_shorten(match[2])}",
            )
        step = Step(op, operands[0].strip(), operands[1].strip())
        _check_operands(step, len(steps))
        steps.append(step)
        position = match.end()
        if position == len(text):
            return tuple(steps)
        if not text.startswith(", ", position):
            raise ProgramError(
                "bad_separator",
                f"step {len(steps)}: expected ', ' before it, at {_shorten(text, position)}",
            )
        position += 2


def render(program: Program) -> str:
    """The program's text; `parse(render(p)) == p`."""
    return ", ".join(f"{step.op}({step.arg1}, {step.arg2})" for step in program)


def resolve(program: str | Program, references: Mapping[str, str]) -> Program:
    """The program with each operand that is a key of `references` replaced by its literal.

    `ProgramError` if the text does not parse, or a literal (a row label with parentheses, say) cannot be an operand.
    """
    steps = parse(program) if isinstance(program, str) else program
    resolved = []
    for index, step in enumerate(steps):
        arg1 = references.get(step.arg1, step.arg1).strip()
        arg2 = references.get(step.arg2, step.arg2).strip()
        if arg1 != step.arg1 or arg2 != step.arg2:
            step = Step(step.op, arg1, arg2)
            _check_operands(step, index)
        resolved.append(step)
    return tuple(resolved)


def execute(program: Program, table: Table) -> Answer:
    """The program's value rounded to 5 decimals, or "yes" / "no"; `ExecutionError` if it has none.

    The value may be infinite or NaN if an operand is ("inf", "1e999"), as in the official script.
    """
    if not program:
        raise ExecutionError("empty", "the program is empty")
    value = run(((step.op, step.arg1, step.arg2) for step in program), table)
    return finish(value)


def run(steps: Iterable[tuple[str, str, str]], table: Table) -> Any:
    """The last step's raw value: float, int, complex, or text of "yes" and "no"; `ExecutionError` if there is none."""
    results: list[Any] = []
    # Kept from one table operation to the next, as in the official script.
    numbers: list[float] | None = None
    rows: dict[str, Sequence[str]] | None = None
    for op, arg1, arg2 in steps:
        if op in ARITHMETIC:
            left = _result(results, arg1) if "#" in arg1 else number(arg1)
            right = _result(results, arg2) if "#" in arg2 else number(arg2)
            value = apply(op, left, right)
        else:
            if rows is None:
                rows = table_rows(table)
            if "#" in arg1:
                _result(results, arg1)
                if numbers is None:
                    raise ExecutionError(
                        "no_row", f"{op}({_shorten(arg1)}): no table operation before it"
                    )
            else:
                if arg1 not in rows:
                    raise ExecutionError("unknown_row", f"the table has no row {_shorten(arg1)}")
                numbers = row_numbers(rows[arg1])
            value = aggregate(op, numbers)
        results.append(value)
    if not results:
        raise ExecutionError("empty", "the program is empty")
    return results[-1]


def apply(op: str, left: Any, right: Any) -> Any:
    """The raw value of an arithmetic step, "yes" or "no" for greater; `ExecutionError` if it has none."""
    function = ARITHMETIC[op]
    if left.__class__ is float and right.__class__ is float:
        try:
            value = function(left, right)
        except (ZeroDivisionError, OverflowError) as error:
            raise _arithmetic_error(op, error) from error
    else:
        value = _unusual(op, function, left, right)
    if op == "greater":
        return "yes" if value else "no"
    return value


def finish(value: Any) -> Answer:
    """A raw value as the script reports it: rounded to 5 decimals, "yes" or "no"; `ExecutionError` for any other."""
    if value.__class__ is str:
        if value in ("yes", "no"):
            return str(value)
        raise ExecutionError("type", "the program's value is a concatenation of yes and no")
    if value.__class__ is complex:
        raise ExecutionError("complex", "the program's value is a complex number")
    rounded: float = round(value, 5)
    return rounded


def number(text: str) -> float:
    """The number that an operand or a table cell stands for; `ExecutionError` (not_a_number) if it is none."""
    text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        pass
    try:
        if "%" in text:
            return float(text.replace("%", "")) / 100.0
        if "const" in text:
            text = text.replace("const_", "")
            return -1.0 if text == "m1" else float(text)
    except ValueError:
        pass
    raise ExecutionError("not_a_number", f"{_shorten(text)} is not a number")


def row_numbers(cells: Iterable[str]) -> list[float]:
    """The numbers of a table row's cells, without "$" and anything from a parenthesis on: "$ -9 ( 9 )" is -9."""
    try:
        return [number(cell.replace("$", "").strip().split("(")[0].strip()) for cell in cells]
    except AttributeError as error:
        raise ExecutionError("bad_table", "a cell of the table is not text") from error


def format_answer(value: Answer) -> str:
    """An answer as text: "yes", "no", or at most 5 decimals without trailing zeros ("94", "0.01639", "-0.5")."""
    if isinstance(value, str):
        return value
    value = round(value, 5)
    if not math.isfinite(value) or abs(value) >= 1e16:
        return repr(value)
    text = f"{value:.5f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def parse_answer(text: str) -> Answer | None:
    """The inverse of `format_answer`, also for "$ 1,234.5", "YES" and "1.6%" (0.016); None for any other text.

    A text is a number as a whole or not at all: "1/2", "1,5", "1 234" and "5 million" are none.
    """
    if len(text) > 1000:
        return None
    text = plain(text).strip().lower()
    if text == "yes" or text == "no":
        return text
    match = _STATED.fullmatch(text)
    if match is None:
        return None
    value = float(match[3].translate(SEPARATORS))
    if "-" in (match[1], match[2]):
        value = -value
    if match[4]:
        value /= 100.0
    return value if math.isfinite(value) else None


def _check_operands(step: Step, index: int) -> None:
    """`ProgramError` for an operand that the official tokenizer would split or never find."""
    for operand in (step.arg1, step.arg2):
        if not operand or "(" in operand or ")" in operand or "|" in operand or ", " in operand:
            raise ProgramError(
                "bad_operand", f"step {index}: {_shorten(operand)} cannot be an operand"
            )
    for operand in (step.arg1,) if step.op in TABLE_OPERATIONS else (step.arg1, step.arg2):
        if "#" in operand:
            if not _REFERENCE.fullmatch(operand):
                raise ProgramError(
                    "bad_operand",
                    f"step {index}: {_shorten(operand)} is not a reference such as #0",
                )
            if len(operand) > 12 or int(operand[1:]) >= index:
                raise ProgramError(
                    "forward_reference", f"step {index}: {_shorten(operand)} is not an earlier step"
                )


def _result(results: list[Any], operand: str) -> Any:
    try:
        index = int(operand.replace("#", ""))  # the script's reading, which also takes "-#0"
    except ValueError as error:
        raise ExecutionError(
            "not_a_number", f"{_shorten(operand)} is not a reference such as #0"
        ) from error
    if not 0 <= index < len(results):
        raise ExecutionError("forward_reference", f"{_shorten(operand)} is not an earlier step")
    return results[index]


def table_rows(table: Table) -> dict[str, Sequence[str]]:
    """Row label -> cells; the last row with a label counts, as in the official script."""
    try:
        return {row[0]: row[1:] for row in table}
    except (TypeError, IndexError, KeyError) as error:
        raise ExecutionError(
            "bad_table", "the table is not a list of rows that start with a label"
        ) from error


def aggregate(op: str, numbers: list[float]) -> float:
    """The value of a table operation on a row's numbers."""
    if op == "table_sum" or op == "table_average":
        # From Python 3.12, sum() compensates rounding errors, and verdicts must not depend on the version.
        total: float = 0
        for item in numbers:
            total += item
        if op == "table_sum":
            return total
        if numbers:
            return total / len(numbers)
    elif op == "table_max" or op == "table_min":
        if numbers:
            return max(numbers) if op == "table_max" else min(numbers)
    else:
        raise ExecutionError("unknown_operation", f"unknown operation {_shorten(op)}")
    raise ExecutionError("empty_row", f"{op} of a row without cells")


def _unusual(op: str, function: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """One arithmetic step on anything but two floats: text, complex numbers, integers from empty rows."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        size = bits * max(right, 0) if op == "exp" else bits + right.bit_length()
        if size > MAX_BITS:
            raise ExecutionError("overflow", f"{op}: the integer is too large")
    if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) > MAX_TEXT:
        raise ExecutionError("overflow", f"{op}: the text is too long")
    if op == "multiply" and {type(left), type(right)} == {str, int}:
        text, count = (left, right) if isinstance(left, str) else (right, left)
        if len(text) * max(count, 0) > MAX_TEXT:
            raise ExecutionError("overflow", f"{op}: the text is too long")
    try:
        return function(left, right)
    except (ZeroDivisionError, OverflowError) as error:
        raise _arithmetic_error(op, error) from error
    except TypeError as error:
        reason = "complex" if isinstance(left, complex) or isinstance(right, complex) else "type"
        raise ExecutionError(reason, f"{op}: its operands are not both numbers") from error


def _arithmetic_error(op: str, error: ArithmeticError) -> ExecutionError:
    if isinstance(error, ZeroDivisionError):
        return ExecutionError("division_by_zero", f"{op}: division by zero")
    return ExecutionError("overflow", f"{op}: the number is too large")


def _shorten(text: str, start: int = 0, limit: int = 40) -> str:
    rest = text[start : start + limit]
    return repr(rest if start + limit >= len(text) else rest + "...")

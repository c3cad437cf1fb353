"""An answer taken apart for a reader: the page in parts, and the value of each step of the program.

    explain(example, '{"program": ["subtract(B3, C3)", "divide(#0, C3)"], "answer": "0.016"}')

        subtract(B3, C3)    subtract(5829, 5735)    94
        divide(#0, C3)      divide(#0, 5735)        0.01639      places: B3, C3

The page is the example's own, as models read it. With operands `literal`, the places of an operand are all those that
show it in the table's body or the text or, if there are none, in the header.

Left out: the verdicts, which are the scorer's alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.tasks import Example, ExplainedStep, Explanation, Line, Piece, Table
from posttrain.tasks.finqa.program import (
    TABLE_OPERATIONS,
    Answer,
    ExecutionError,
    Program,
    ProgramError,
    finish,
    format_answer,
    parse,
    render,
    resolve,
    run,
)
from posttrain.tasks.finqa.score import read_answer

MAX_STEPS = 30  # explained steps of a program; each is executed with all before it


def explain(example: Example, text: str) -> Explanation:
    """The page, and the answer's steps with the values of the scorer's executor."""
    page = tuple(map(_part, example["page"]))
    found = read_answer(text)
    if found is None:
        return Explanation(page, (), (), None, "no JSON object with a program")
    program_text, answer, _ = found
    try:
        written = parse(program_text)
        cells = example["operands"] == "cells"
        program = resolve(written, example["references"]) if cells else written
    except ProgramError as error:
        return Explanation(page, (), (), answer, str(error))
    steps = tuple(_explained(written, program, example["table"]))
    return Explanation(page, steps, _places(written, example), answer, None)


def _part(part: Mapping[str, Sequence[Any]]) -> Line | Table:
    if "table" in part:
        return Table(tuple(tuple(map(_piece, row)) for row in part["table"]))
    return Line(tuple(map(_piece, part["line"])))


def _piece(piece: str | Sequence[str]) -> Piece:
    return Piece(piece) if isinstance(piece, str) else Piece(*piece)


def _explained(
    written: Program, program: Program, table: Sequence[Sequence[str]]
) -> Iterator[ExplainedStep]:
    failed = False
    for index, step in enumerate(program[:MAX_STEPS]):
        value, problem = None, None
        if not failed:
            try:
                raw = run(((s.op, s.arg1, s.arg2) for s in program[: index + 1]), table)
            except ExecutionError as error:
                failed, problem = True, str(error)
            else:
                try:
                    value = _shown(finish(raw))
                except ExecutionError as error:
                    problem = str(error)
        yield ExplainedStep(
            step.op, render((written[index],)), render((program[index],)), value, problem
        )


def _shown(value: Answer) -> str:
    # The sum of a row without cells is an int, and an int may be too large for a float.
    return format_answer(value) if isinstance(value, float | str) else str(value)


def _places(program: Program, example: Example) -> tuple[str, ...]:
    """The places that a program reads, in its order; a table operation reads a whole row."""
    found: dict[str, None] = {}
    for step in program[:MAX_STEPS]:
        if step.op in TABLE_OPERATIONS:
            rows = {_cell(name)[1] for name in _labels(step.arg1, example)}
            found |= dict.fromkeys(n for n in example["references"] if _cell(n)[1] in rows)
        else:
            for operand in (step.arg1, step.arg2):
                found |= dict.fromkeys(_numbers(operand, example))
    return tuple(found)


def _labels(operand: str, example: Example) -> list[str]:
    references: Mapping[str, str] = example["references"]
    if example["operands"] == "cells" and operand in references:
        return [operand] if _cell(operand)[0] == "A" else []
    return [n for n, literal in references.items() if literal == operand and _cell(n)[0] == "A"]


def _numbers(operand: str, example: Example) -> list[str]:
    references: Mapping[str, str] = example["references"]
    if example["operands"] == "cells":
        return [operand] if operand in references else []
    names = [n for n, literal in references.items() if literal == operand and _cell(n)[0] != "A"]
    return [name for name in names if _cell(name)[1] != 1] or names


def _cell(name: str) -> tuple[str, int]:
    """Column and row (from 1) of a reference; ("T", 0) for a number of the text."""
    column = name.rstrip("0123456789")
    return column, 0 if column == "T" else int(name.removeprefix(column))

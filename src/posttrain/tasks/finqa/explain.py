"""Take an answer apart for a reader: the page in parts, and what each step of the program gives.

    explain(example, '{"program": ["subtract(B3, C3)", "divide(#0, C3)"], "answer": "0.016"}')

        subtract(B3, C3)    subtract(5829, 5735)    94
        divide(#0, C3)      divide(#0, 5735)        0.01639      places: B3, C3

The page is read back from the example's own text, so what is shown is what models read. Where programs repeat
numbers (operands `literal`), the places of an operand are all that show it: in the table's body or the text, and
only if there is none, in the header.

Left out: the verdicts, which are the scorer's alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.tasks import Example, ExplainedStep, Explanation, Line, Piece, Table
from posttrain.tasks.finqa.context import row_sentence
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
from posttrain.tasks.finqa.sheet import column_letter, render_page, text_numbers

MAX_STEPS = 30  # of a program, that are explained; each is executed with all before it


Span = tuple[int, int, str]  # start, stop, place


def explain(example: Example, text: str) -> Explanation:
    """The page, and the answer's steps with the values of the scorer's executor."""
    page = read_page(example)
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
    # The sum of a row without cells is an int, of which there are some too large for a float.
    return format_answer(value) if isinstance(value, float | str) else str(value)


def _places(program: Program, example: Example) -> tuple[str, ...]:
    """The places that a program as written reads, in its order; a table operation reads a whole row."""
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
    """Column and row, from 1, of a reference; ("T", 0) for a number of the text."""
    column = name.rstrip("0123456789")
    return column, 0 if column == "T" else int(name.removeprefix(column))


# ------------------------------------------------------------------------------- the page


def read_page(example: Example) -> tuple[Line | Table, ...]:
    """The lines of `input_text`, neighbouring rows of the table together, with the places that can be named."""
    references: Mapping[str, str] = example["references"]
    table: Sequence[Sequence[str]] = example["table"]
    cells = example["operands"] == "cells"
    rows = _row_lines(table, example["operands"])
    sentences = {row_sentence(table, index): index for index in range(1, len(table))}
    parts: list[Line | Table] = []
    tags = 0
    for line in example["input_text"].split("\n"):
        row = _cells(line, rows[line], table, references, cells) if line in rows else None
        if row is not None:
            last = parts[-1] if parts else None
            if isinstance(last, Table):
                parts[-1] = Table((*last.rows, row))
            else:
                parts.append(Table((row,)))
            continue
        if line in sentences:
            spans = _sentence_spans(line, sentences[line], table, references)
        else:
            spans = _tagged_spans(line, tags, references) if cells else []
            spans = spans if cells else _number_spans(line, tags, references)
            tags += len(spans)
        parts.append(Line(_cut(line, spans)))
    return tuple(parts)


def _row_lines(table: Sequence[Sequence[str]], operands: str) -> dict[str, int]:
    """Each row of the table as a line of the page, and its index."""
    row: Mapping[str, Any] = {"table": table, "pre_text": [], "post_text": []}
    visible = {f"table_{index}" for index in range(len(table))}
    lines = render_page(row, visible, operands).text.split("\n")
    return {line: i for i, line in enumerate(lines)} if len(lines) == len(table) else {}


def _cells(
    line: str,
    row: int,
    table: Sequence[Sequence[str]],
    references: Mapping[str, str],
    sheet: bool,
) -> tuple[Piece, ...] | None:
    """The cells of a row's line; None when a cell holds the separator, so that they cannot be told apart."""
    texts = (line if sheet else line.removeprefix("| ").removesuffix(" |")).split(" | ")
    if len(texts) > max(1, len(table[row])):
        return None
    texts += [""] * (len(table[0]) - len(texts))
    names = (f"{column_letter(column)}{row + 1}" for column in range(len(texts)))
    return tuple(
        Piece(text, name if name in references else "")
        for text, name in zip(texts, names, strict=True)
    )


def _tagged_spans(line: str, tags: int, references: Mapping[str, str]) -> list[Span]:
    """Numbers of a text line, each behind its name and words, `[T1 rent was $] 5.8`; `tags` were on the page before."""
    spans: list[Span] = []
    end = 0
    while True:
        name = f"T{tags + len(spans) + 1}"
        named = re.compile(rf"\[{name}[ \]]").search(line, end)
        literal = references.get(name)
        start = line.find(f"] {literal}", named.start()) if named else -1
        if literal is None or start < 0:
            return spans
        end = start + len("] ") + len(literal)
        spans.append((start + len("] "), end, name))


def _number_spans(line: str, tags: int, references: Mapping[str, str]) -> list[Span]:
    """The same numbers on a page without tags."""
    spans: list[Span] = []
    for start, stop, literal in text_numbers(line):
        name = f"T{tags + len(spans) + 1}"
        if references.get(name) == literal:
            spans.append((start, stop, name))
    return spans


def _sentence_spans(
    line: str, row: int, table: Sequence[Sequence[str]], references: Mapping[str, str]
) -> list[Span]:
    """Label and cells of a row that is written out."""
    spans: list[Span] = []
    for column, cell in enumerate(table[row]):
        name = f"{column_letter(column)}{row + 1}"
        after = spans[-1][1] if spans else 0
        lead = " is " if column else "the "
        start = line.find(f"{lead}{cell} ", after)
        if start >= 0 and name in references:
            spans.append((start + len(lead), start + len(lead) + len(cell), name))
    return spans


def _cut(line: str, spans: Sequence[Span]) -> tuple[Piece, ...]:
    pieces, end = [], 0
    for start, stop, name in spans:
        if start > end:
            pieces.append(Piece(line[end:start]))
        pieces.append(Piece(line[start:stop], name))
        end = stop
    if end < len(line) or not pieces:
        pieces.append(Piece(line[end:]))
    return tuple(pieces)

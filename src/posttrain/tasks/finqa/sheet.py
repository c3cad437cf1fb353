"""Pages as plain text or as sheets whose numbers have names, and programs written in these names.

In the sheet form (`operands: cells`) the table's columns are A (labels), B, C, ... and its rows are numbered as a
spreadsheet would, the header being row 1:

    1 | B 2009 | C 2008
    3 net revenue | 5829 | 5735

and numbers in the text are named T1, T2, ..., each name before the words that lead to its number: "[T1 rent expense was
$] 5.8 billion [T2 , up from $] 5.2 billion". So a model knows the name of a number, like the row of a line, before it
reads the number. A program can then say `subtract(B3, C3)`. Each reference stands for exactly one literal operand, and
replaces an operand only if it stands for the very same string, so that resolving a program gives back that of the data
set, character for character.

Not named in the text: years, days of a month, numbers of notes and the like, and the repetition in parentheses in "-3 (
3 )" or "75% ( 75 % )".
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.tasks.finqa.context import row_pieces
from posttrain.tasks.finqa.program import Program, ProgramError, Step, parse, render, resolve

_NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)%?")
_YEAR = re.compile(r"(?:19|20)\d\d")
_REPEATED = re.compile(r"\(\s*-?[\d.]+\s*%?\s*\)")
_MONTHS = frozenset(name.lower() for name in calendar.month_name[1:])
_NUMBERED = frozenset(
    {"note", "notes", "page", "pages", "item", "exhibit", "part", "topic", "section"}
)
Part = dict[str, list[Any]]  # {"line": [piece, ...]} or {"table": [[piece, ...], ...]}

WORDS_BEFORE = 5  # a number in the text is named by this many words before it
_TABLE_PREFIX = "table_"


@dataclass(frozen=True, slots=True)
class Page:
    """A page as the model reads it, and the literal operand of each visible reference.

    references: "B3", "A3", "T1" -> literal operand. sources: the same keys -> the fact that shows them (`table_2`,
    `text_12`). columns: column letter -> words of its header. names: a text's number T1 -> the words before it. parts:
    the text again, as a JSON value of lines and the table's rows together; a piece of either is its text, or [text,
    reference].
    """

    text: str
    references: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)


def render_page(
    row: Mapping[str, Any], visible: Collection[str], operands: str, sentences: bool = False
) -> Page:
    """The page's visible facts in reading order.

    visible: fact keys (see `context`); the table's header is shown with any of its rows. operands: cells or literal.
    sentences: whether a plain table's rows are written as sentences instead of lines. References are filled in both
    forms.
    """
    builder = _Builder(operands == "cells")
    table: list[list[str]] = row["table"]
    before: list[str] = row["pre_text"]
    for index, text in enumerate(before):
        if f"text_{index}" in visible:
            builder.add_text(f"text_{index}", text)
    shown = [index for index in range(1, len(table)) if f"{_TABLE_PREFIX}{index}" in visible]
    if table and (shown or "table_0" in visible):
        builder.add_table(table, shown, sentences)
    for index, text in enumerate(row["post_text"], start=len(before)):
        if f"text_{index}" in visible:
            builder.add_text(f"text_{index}", text)
    return Page(
        "\n".join(builder.lines),
        builder.references,
        builder.sources,
        builder.columns,
        builder.names,
        builder.parts,
    )


class _Builder:
    def __init__(self, cells: bool) -> None:
        self.cells = cells
        self.lines: list[str] = []
        self.parts: list[Part] = []
        self.references: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.columns: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.tags = 0

    def add_text(self, key: str, text: str) -> None:
        pieces, end = [], 0
        for start, stop, literal in text_numbers(text):
            self.tags += 1
            name = f"T{self.tags}"
            self.references[name] = literal
            self.sources[name] = key
            self.names[name] = " ".join(text[:start].split()[-WORDS_BEFORE:])
            lead = text[end:start]
            if self.cells:
                space = " " if lead.startswith(" ") else ""
                lead = f"{space}[{f'{name} {lead.strip()}'.rstrip()}] "
            pieces += [(lead, ""), (text[start:stop], name)]
            end = stop
        self._add_line([*pieces, (text[end:], "")])

    def _add_line(self, pieces: Sequence[tuple[str, str]]) -> None:
        """Add a line, given as (text, reference or empty) pairs."""
        self.lines.append("".join(text for text, _ in pieces))
        merged: list[Any] = []
        for text, name in pieces:
            if text and name:
                merged.append([text, name])
            elif text and merged and isinstance(merged[-1], str):
                merged[-1] += text
            elif text:
                merged.append(text)
        self.parts.append({"line": merged or [""]})

    def add_table(
        self, table: Sequence[Sequence[str]], shown: Sequence[int], sentences: bool
    ) -> None:
        for index in [0, *shown]:
            for column, cell in enumerate(table[index]):
                literal = _literal(index, column, cell)
                if literal:
                    name = _cell_name(column, index)
                    self.references[name] = literal
                    self.sources[name] = f"{_TABLE_PREFIX}{index}"
        self.columns = {column_letter(i): cell for i, cell in enumerate(table[0]) if i}
        if self.cells:
            header = [f"{column_letter(i)} {cell}".rstrip() for i, cell in enumerate(table[0]) if i]
            rows = [[f"1 {table[0][0] if table[0] else ''}".rstrip(), *header]]
            self.lines.append(" | ".join(rows[0]))
            for index in shown:
                label, *cells = table[index] or [""]
                rows.append([f"{index + 1} {label}".rstrip(), *map(compact_cell, cells)])
                self.lines.append(" | ".join(rows[-1]).rstrip())
            self._add_rows(rows, [0, *shown])
        elif sentences:
            for index in shown:
                places = [
                    (text, "" if column is None else self._known(column, index))
                    for text, column in row_pieces(table, index)
                ]
                self._add_line(places)
        else:
            self.lines += [f"| {' | '.join(table[index])} |" for index in [0, *shown]]
            self._add_rows([table[index] for index in [0, *shown]], [0, *shown])

    def _add_rows(self, rows: Sequence[Sequence[str]], indices: Sequence[int]) -> None:
        """Add the cells of the table's rows at `indices`, with empty ones where a row is shorter than the header."""
        table: list[list[Any]] = []
        for texts, index in zip(rows, indices, strict=True):
            names = [self._known(column, index) for column in range(len(texts))]
            cells: list[Any] = [
                [text, name] if name else text for text, name in zip(texts, names, strict=True)
            ]
            table.append(cells + [""] * (len(rows[0]) - len(cells)))
        self.parts.append({"table": table})

    def _known(self, column: int, index: int) -> str:
        name = _cell_name(column, index)
        return name if name in self.references else ""


def _literal(row: int, column: int, cell: str) -> str | None:
    """The operand that a reference to this place stands for, or None; the corner has none."""
    if column == 0:
        return cell if row else None
    return cell_literal(cell) if row else header_literal(cell)


def text_numbers(text: str) -> list[tuple[int, int, str]]:
    """(start, stop, literal) of each number in a sentence that a program might use, in order."""
    found: list[tuple[int, int, str]] = []
    repeated = [match.span() for match in _REPEATED.finditer(text)]
    before = ""
    for match in re.finditer(r"\S+", text):
        token = match.group()
        start = match.start() + len(token) - len(token.lstrip("($"))
        literal = token.lstrip("($").rstrip(".,;:)")
        if _NUMBER.fullmatch(literal) and not any(
            a < start < b for a, b in repeated if _repeats(found, text, a)
        ):
            is_year = bool(_YEAR.fullmatch(literal)) and before != "$" and not token.startswith("$")
            is_small = literal.isdigit() and len(literal) <= 2
            is_place = is_small and (before in _MONTHS or before in _NUMBERED)
            if not is_year and not is_place:
                found.append((start, start + len(literal), literal))
        before = token
    return found


def _repeats(found: Sequence[tuple[int, int, str]], text: str, bracket: int) -> bool:
    """Whether the bracket at this position directly follows the last number found."""
    return bool(found) and not text[found[-1][1] : bracket].strip()


def cell_literal(cell: str) -> str | None:
    """The operand that a table cell stands for: its first number, or None.

    "$ 2457" -> "2457", "-3 ( 3 )" -> "-3", "12.5%" -> "12.5%", "n/a" -> None.
    """
    for token in cell.split():
        literal = token.lstrip("($").rstrip(",;)")
        if _NUMBER.fullmatch(literal):
            return literal
    return None


def header_literal(cell: str) -> str | None:
    """The operand that a column's header stands for: its year if any, else its first number."""
    year = re.search(r"\b(?:19|20)\d\d\b", cell)
    return year.group() if year else cell_literal(cell)


def compact_cell(cell: str) -> str:
    """A cell as the sheet shows it: "$ 2457" -> "2457", "-3 ( 3 )" -> "-3"."""
    cell = cell.replace("$", " ")
    match = re.fullmatch(r"\s*(\S+)\s*\(.*\)\s*", cell)
    if (
        match
        and _NUMBER.fullmatch(match.group(1))
        and _REPEATED.fullmatch(cell[match.end(1) :].strip())
    ):
        return match.group(1)
    return " ".join(cell.split())


def _cell_name(column: int, row: int) -> str:
    return f"{column_letter(column)}{row + 1}"


def column_letter(index: int) -> str:
    """0 -> "A", 25 -> "Z", 26 -> "AA"."""
    letters = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def to_cells(program_text: str, page: Page, question: str, gold: Collection[str] = ()) -> str:
    """The program with references for the operands that the page names.

    If a literal has several references, those of `gold` facts come first, then numbers of the table's body or the text,
    then those whose column the question mentions, then the first on the page. A program that `resolve` would not give
    back exactly is left as it is.
    """
    try:
        program = parse(program_text)
    except ProgramError:
        return program_text
    by_literal: dict[str, list[str]] = {}
    for name, literal in page.references.items():
        by_literal.setdefault(literal, []).append(name)
    asked = set(re.findall(r"[a-z0-9.]+", question.lower()))

    def rank(name: str) -> tuple[bool, bool, bool]:
        header = page.columns.get(name.rstrip("0123456789"), "").lower()
        mentioned = bool(asked.intersection(_YEAR.findall(header)))
        return (page.sources[name] not in gold, not _is_number_cell(name), not mentioned)

    def replace(operand: str, label: bool) -> str:
        names = by_literal.get(operand, [])
        if label:
            names = [name for name in names if name.rstrip("0123456789") == "A"]
        return min(names, key=rank) if names else operand

    steps: list[Step] = []
    for step in program:
        is_table = step.op.startswith(_TABLE_PREFIX)
        first = replace(step.arg1, label=is_table)
        steps.append(
            Step(step.op, first, step.arg2 if is_table else replace(step.arg2, label=False))
        )
    written = render(tuple(steps))
    return written if _comes_back(written, program, page.references) else program_text


def _is_number_cell(name: str) -> bool:
    """Whether a reference names a number of the table's body or the text, not a label or a header."""
    return name.startswith("T") or not (
        name.rstrip("0123456789") == "A" or re.fullmatch(r"[A-Z]+1", name)
    )


def _comes_back(written: str, program: Program, references: Mapping[str, str]) -> bool:
    try:
        return resolve(written, references) == program
    except ProgramError:
        return False

"""The audit of every row of every split before training: wrong rows are left out and listed with a reason.

A broken file (truncated JSON, a missing or ill-typed field) ends the audit with one line, see `load`. A row that is
whole but makes no sense is rejected:

    not_writable          see `tasks.auditing`
    duplicate_id          an earlier row, of this or another split, has the same id
    empty_table           the program reads a table that has no rows
    number_not_finite     a table cell is "nan", "inf" or over 1e15 in size, in a row that the program reads
    program_invalid       the program does not parse or does not execute
    answer_mismatch       the program's value is not `exe_ans`

The metrics also count disagreements of the human `answer` by class, lengths and how many texts exceed each limit, and
leakage between splits.

Left out: whether the question can be answered from the page.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory
from posttrain.tasks.auditing import (
    Audit,
    Keep,
    Rejected,
    audit_split,
    count_words,
    describe_lengths,
    let_go,
    write_audit,
)
from posttrain.tasks.finqa.context import row_sentence
from posttrain.tasks.finqa.load import SPLIT_FILES, iterate_split
from posttrain.tasks.finqa.program import (
    TABLE_OPERATIONS,
    ExecutionError,
    ProgramError,
    execute,
    parse,
)
from posttrain.tasks.texts import plain

HUGE = 1e15

_OPTIONAL_QA = ("answer", "program_re")
_TABLE_COUNTS = ("empty_tables", "tables_with_strange_numbers", "duplicate_row_labels")

Row = Mapping[str, Any]


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,val,test}.jsonl and rejected.jsonl of `source`'s split files into `directory`.

    Returns the metrics of `audit_splits`; `UserError` if a split keeps no row.
    """
    splits = {split: iterate_split(source / name) for split, name in SPLIT_FILES.items()}
    with atomic_directory(directory) as output:
        return write_audit(partial(audit_splits, splits), source, SPLIT_FILES, output).metrics


def audit_splits(
    splits: Mapping[str, Iterable[dict[str, Any]]],
    keep: Keep = let_go,
    count_tokens: Callable[[str], int] = count_words,
) -> Audit:
    """Audit all splits together, row by row; `keep(split, rows)` gets the sound rows, `count_tokens` measures lengths."""
    rejected: list[Rejected] = []
    seen: dict[str, str] = {}
    profiles: dict[str, _Profile] = {}
    metrics: dict[str, Any] = {}
    for split, rows in splits.items():
        profile = profiles[split] = _Profile(count_tokens)

        def problem(row: Row, index: int, split: str = split) -> tuple[str, str] | None:
            found = _problem(row, seen)
            if found is None:
                seen[row["id"]] = f"{split} row {index}"
            return found

        metrics[split] = audit_split(split, rows, problem, profile, rejected, keep)
    metrics["leakage"] = _leakage({split: profile.keys for split, profile in profiles.items()})
    return Audit(rejected, metrics)


def _problem(row: Row, seen: Mapping[str, str]) -> tuple[str, str] | None:
    """(reason, detail) for a row that must be left out, else None."""
    qa, table = row["qa"], row["table"]
    if row["id"] in seen:
        return "duplicate_id", f"the same id as {seen[row['id']]}"
    try:
        program = parse(qa["program"])
    except ProgramError as error:
        return "program_invalid", f"{error.reason}: {error}"
    labels = {step.arg1 for step in program if step.op in TABLE_OPERATIONS}
    if labels and len(table) < 2:
        return "empty_table", "the program has a table operation and the table has no rows"
    for cells in table[1:]:
        strange = _strange_cells(cells)
        touched = cells and cells[0] in labels
        if strange and (touched or any(_same_number(strange, s.arg1, s.arg2) for s in program)):
            return "number_not_finite", f"table row {cells[0]!r} has the cell {strange[0]!r}"
    try:
        value = execute(program, table)
    except ExecutionError as error:
        return "program_invalid", f"{error.reason}: {error}"
    if not _same_answer(value, qa["exe_ans"]):
        return "answer_mismatch", f"the program gives {value!r}, exe_ans is {qa['exe_ans']!r}"
    return None


def _same_answer(value: float | str, expected: float | str) -> bool:
    if isinstance(value, str) or isinstance(expected, str):
        return value == expected
    return round(value, 5) == round(expected, 5)


def _same_number(cells: Sequence[str], *operands: str) -> bool:
    return any(operand in cell.split() for cell in cells for operand in operands)


def _strange_cells(cells: Sequence[str]) -> list[str]:
    """The cells that hold "nan", "inf", or a number too large for a report."""
    strange = []
    for cell in cells[1:]:
        for word in cell.replace("$", " ").replace(",", "").split():
            try:
                value = float(word.rstrip("%"))
            except ValueError:
                continue
            # float() reads "nan", "inf" and "1e400", which is infinite.
            if not math.isfinite(value) or abs(value) > HUGE:
                strange.append(cell)
                break
    return strange


class _Profile:
    """Counts over the rows of a split, added one by one."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self.keys: dict[str, list[Hashable]] = {"ids": [], "pages": [], "page_and_question": []}
        self._count_tokens = count_tokens
        self._lengths: list[int] = []
        self._missing = Counter({f"qa.{name}": 0 for name in (*_OPTIONAL_QA, "gold_inds")})
        self._tables = Counter(dict.fromkeys(_TABLE_COUNTS, 0))
        self._yes_no = 0
        self._steps, self._operations, self._human = (Counter[str]() for _ in range(3))

    def add(self, row: Row) -> None:
        qa, table = row["qa"], row["table"]
        self.keys["ids"].append(row["id"])
        self.keys["pages"].append(row["filename"])
        asked = row["filename"], qa["question"].strip().lower()
        self.keys["page_and_question"].append(asked)
        self._lengths.append(self._count_tokens(page_text(row)))
        for name in (*_OPTIONAL_QA, "gold_inds"):
            self._missing[f"qa.{name}"] += not qa.get(name)
        strange = any(_strange_cells(cells) for cells in table[1:])
        repeated = len({cells[0] for cells in table if cells}) < len(table)
        for name, found in zip(_TABLE_COUNTS, (len(table) < 2, strange, repeated), strict=True):
            self._tables[name] += found
        self._yes_no += isinstance(qa["exe_ans"], str)
        self._human[answer_class(qa.get("answer"), qa["exe_ans"])] += 1
        try:
            program = parse(qa["program"])
        except ProgramError:
            return
        self._steps[str(len(program))] += 1
        self._operations.update(step.op for step in program)

    def summary(self) -> dict[str, Any]:
        return {
            "missing_fields": dict(self._missing),
            "pages": len(set(self.keys["pages"])),
            **self._tables,
            "steps": dict(sorted(self._steps.items())),
            "operations": dict(sorted(self._operations.items())),
            "yes_no": self._yes_no,
            "human_answer": dict(sorted(self._human.items())),
            "length": describe_lengths(self._lengths),
        }


def page_text(row: Row) -> str:
    """Page and question as one text, with the table's rows as sentences."""
    table = row["table"]
    rows = [row_sentence(table, index) for index in range(1, len(table))]
    return "\n".join([*row["pre_text"], *rows, *row["post_text"], row["qa"]["question"]])


def answer_class(answer: object, expected: float | str) -> str:
    """The relation of a human `answer` to `exe_ans`.

    agrees (after rounding to the digits that the human wrote; a "%" or "percent" stands for a hundredth), empty, or the
    first reason that explains a disagreement: percent_scale (a factor of 100), sign, rounding (within 1 % or one unit
    of the last digit), other.
    """
    text = plain(str(answer)).strip().lower() if answer is not None else ""
    if not text:
        return "empty"
    if isinstance(expected, str) or text in ("yes", "no"):
        return "agrees" if text == expected else "other"
    match = re.search(r"-?\s*(?:\d[\d,]*\.?\d*|\.\d+)", text.replace("$", ""))
    if not match:
        return "other"
    number = match.group().replace(",", "").replace(" ", "")
    stated = float(number)
    unit = 10.0 ** -len(number.partition(".")[2])
    percent = "%" in text or "percent" in text
    if abs(expected) > HUGE:  # a hundred times it may be more than a float holds
        return "other"
    truth = expected * 100 if percent else expected
    if _rounds_to(stated, truth, unit):
        return "agrees"
    other_scale = expected if percent else expected * 100
    if _rounds_to(stated, other_scale, unit) or _rounds_to(stated, expected / 100, unit / 100):
        return "percent_scale"
    if _rounds_to(-stated, truth, unit) or _rounds_to(-stated, other_scale, unit):
        return "sign"
    if _is_near(stated, truth, unit):
        return "rounding"
    if _is_near(stated, other_scale, unit):
        return "percent_scale"
    return "other"


def _is_near(stated: float, truth: float, unit: float) -> bool:
    return abs(stated - truth) <= max(0.01 * abs(truth), 1.0001 * unit)


def _rounds_to(stated: float, truth: float, unit: float) -> bool:
    # A little over half a unit, as exe_ans is itself rounded to five decimals.
    return abs(stated - truth) <= 0.5 * unit * (1 + 1e-6) + 1e-9 * abs(truth) + 5e-6


def _leakage(splits: Mapping[str, Mapping[str, Sequence[Hashable]]]) -> dict[str, dict[str, int]]:
    """For each pair of splits and each kind of key, the number of rows of the second whose key is in the first."""
    return {
        f"{first}_{second}": {
            kind: sum(key in known for key in splits[second][kind])
            for kind, known in ((kind, set(keys)) for kind, keys in splits[first].items())
        }
        for first, second in combinations(splits, 2)
    }

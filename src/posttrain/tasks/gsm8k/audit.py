"""The audit of every row before training: wrong rows are left out and listed with a reason.

A broken file (truncated JSON, a missing or ill-typed field) ends the audit with one line, see `load`. A row that is
whole but useless is rejected:

    not_writable          see `tasks.auditing`
    answer_missing        the answer's last line is not `#### ` and a number, and nothing else: one such as 1/2, 10:30 or
                          5 apples is not read by half
    duplicate_id          an earlier row, of this or the other file, has the same id
    duplicate_question    an earlier row, of this or the other file, asks the same; the test file is read first, so
                          that questions in both files are left out of train

Calculator annotations are executed again. A result that is not the value of its expression is counted, and listed in
disagreements.jsonl; the row is kept, as its final number may be right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.tasks.auditing import (
    Audit,
    Keep,
    Rejected,
    audit_split,
    count_words,
    describe_lengths,
    write_audit,
)
from posttrain.tasks.gsm8k.arithmetic import format_number, read_number
from posttrain.tasks.gsm8k.load import FILES, iterate_rows
from posttrain.tasks.gsm8k.reading import Step, gold_answer, read_steps

Row = Mapping[str, Any]
_SPACE = re.compile(r"\s+")


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,test}.jsonl, rejected.jsonl and disagreements.jsonl into `directory`; return the metrics."""
    splits = {split: iterate_rows(source / name) for split, name in FILES.items()}
    profiles = {split: _Profile() for split in FILES}
    with atomic_directory(directory) as output:
        result = write_audit(partial(audit_splits, splits, profiles), source, FILES, output)
        found = [line for profile in profiles.values() for line in profile.disagreements]
        write_jsonl(output / "disagreements.jsonl", found)
    return result.metrics


def audit_splits(
    splits: Mapping[str, Iterable[dict[str, Any]]], profiles: Mapping[str, _Profile], keep: Keep
) -> Audit:
    """Audit all files together, row by row; `keep(split, rows)` gets the sound rows of each."""
    rejected: list[Rejected] = []
    metrics: dict[str, Any] = {}
    seen: dict[str, str] = {}
    ids: set[str] = set()

    def problem(row: Row, index: int) -> tuple[str, str] | None:
        found = _problem(row, seen)
        if found is None and row["id"] in ids:
            found = "duplicate_id", f"an earlier row has the id {row['id']!r}"
        if found is None:
            seen[_asked(row)] = row["id"]
            ids.add(row["id"])
        return found

    for split in sorted(splits):  # test before train
        profile = profiles[split]
        metrics[split] = audit_split(split, splits[split], problem, profile, rejected, keep)
    return Audit(rejected, metrics)


def _problem(row: Row, seen: Mapping[str, str]) -> tuple[str, str] | None:
    """(reason, detail) for a row that must be left out, else None."""
    if gold_answer(row["answer"]) is None:
        last = row["answer"].strip().rpartition("\n")[2]
        return (
            "answer_missing",
            f"the last line of the answer is {last[:60]!r}, not #### and a number",
        )
    if _asked(row) in seen:
        return "duplicate_question", f"the same question as {seen[_asked(row)]}"
    return None


def _asked(row: Row) -> str:
    return _SPACE.sub(" ", row["question"]).strip().lower()


class _Profile:
    """Counts over the rows of a file, added one by one.

    disagreements: the annotations whose result is not the value of their expression, or that are no arithmetic.
    """

    def __init__(self) -> None:
        self.disagreements: list[dict[str, Any]] = []
        self._lengths: list[int] = []
        self._verdicts, self._steps = Counter[str](), Counter[int]()
        self._rows_disagreeing = 0

    def add(self, row: Row) -> None:
        steps = read_steps(row["answer"], "keep")
        wrong = [step for step in steps if not step.right]
        self.disagreements += [_disagreement(row, step) for step in wrong]
        self._lengths.append(count_words(f"{row['question']} {row['answer']}"))
        self._verdicts.update(map(_verdict, steps))
        self._steps[len(steps)] += 1
        self._rows_disagreeing += bool(wrong)

    def summary(self) -> dict[str, Any]:
        verdicts = {
            name: self._verdicts[name] for name in ("exact", "rounded", "disagree", "invalid")
        }
        return {
            "annotations": {
                "total": self._verdicts.total(),
                **verdicts,
                "rows_without": self._steps[0],
                "rows_disagreeing": self._rows_disagreeing,
            },
            "steps": {str(count): rows for count, rows in sorted(self._steps.items())},
            "length": describe_lengths(self._lengths),
        }


def _disagreement(row: Row, step: Step) -> dict[str, Any]:
    return {
        "id": row["id"],
        "expression": step.expression,
        "stated": step.stated,
        "value": None if step.value is None else format_number(step.value),
        "error": step.error,
    }


def _verdict(step: Step) -> str:
    """exact, rounded, disagree (the result is another value), or invalid (there is no value)."""
    if step.value is None:
        return "invalid"
    if read_number(step.stated) == step.value:
        return "exact"
    return "rounded" if step.right else "disagree"

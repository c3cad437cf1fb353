"""The audit of tasks whose questions have a reference that can be run.

not_convertible       the row of a stored data set cannot be brought into the task's form, for the reason in its field
reference_fails       the reference is not right in the sandbox
duplicate_question    an earlier row, of this or another split, asks the same
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.tasks.auditing import (
    Audit,
    Keep,
    Rejected,
    audit_split,
    count_words,
    describe_lengths,
)

Row = dict[str, Any]


def audit_references(
    splits: Mapping[str, list[Row]], failing: Callable[[list[Row]], dict[str, str]], keep: Keep
) -> Audit:
    """Audit all splits, test first, so that questions in several of them stay there.

    failing: how references fail in the sandbox, by id of the row; it gets the rows that have one.
    """
    rejected: list[Rejected] = []
    metrics: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for split, rows in sorted(splits.items()):
        bad = failing([row for row in rows if "not_convertible" not in row])

        def problem(row: Row, index: int, bad: dict[str, str] = bad) -> tuple[str, str] | None:
            if "not_convertible" in row:
                return "not_convertible", row["not_convertible"]
            if row["id"] in bad:
                return "reference_fails", bad[row["id"]]
            if row["question"] in seen:
                return "duplicate_question", f"the same question as {seen[row['question']]}"
            seen[row["question"]] = row["id"]
            return None

        metrics[split] = audit_split(split, rows, problem, _Profile(), rejected, keep)
    return Audit(rejected, metrics)


class _Profile:
    """Words of the rows of a split."""

    def __init__(self) -> None:
        self._lengths: list[int] = []

    def add(self, row: Row) -> None:
        self._lengths.append(count_words(row["question"]))

    def summary(self) -> dict[str, Any]:
        return {"length": describe_lengths(self._lengths)}

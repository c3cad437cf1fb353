"""The audit of every formula before training: wrong ones are left out and listed with a reason.

A broken file (truncated JSON, a missing or ill-typed field) ends the audit with one line, see `load`. A row that is
whole but useless is rejected:

    not_writable          see `tasks.auditing`
    no_formula            no variables or more than enumeration can hold, no clauses, an empty clause, a variable that
                          is not there or occurs twice in a clause
    unsatisfiable         no assignment satisfies the formula
    duplicate_id          an earlier row, of this or another file, has the same id
    duplicate_formula     an earlier row, of this or another file, has the same formula up to names of variables and
                          order of clauses and literals, as far as `formula.invariant` tells them apart; the files are
                          read in the order test, val, train
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory
from posttrain.tasks.auditing import Audit, Keep, Rejected, audit_split, write_audit
from posttrain.tasks.sat.formula import fault, invariant, satisfying
from posttrain.tasks.sat.load import FILES, iterate_rows

Row = Mapping[str, Any]


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,val,test}.jsonl and rejected.jsonl into `directory`; return the metrics."""
    splits = {split: iterate_rows(source / name) for split, name in FILES.items()}
    with atomic_directory(directory) as output:
        return write_audit(partial(audit_splits, splits), source, FILES, output).metrics


def audit_splits(splits: Mapping[str, Iterable[dict[str, Any]]], keep: Keep) -> Audit:
    """Audit all files together, row by row; `keep(split, rows)` gets the sound rows of each."""
    rejected: list[Rejected] = []
    metrics: dict[str, Any] = {}
    seen: dict[int, str] = {}
    ids: set[str] = set()

    def problem(row: Row, index: int) -> tuple[str, str] | None:
        found = fault(row["variables"], row["clauses"])
        if found is not None:
            return "no_formula", found
        if not satisfying(row["variables"], row["clauses"]):
            return "unsatisfiable", "no assignment satisfies the formula"
        if row["id"] in ids:
            return "duplicate_id", f"an earlier row has the id {row['id']!r}"
        name = invariant(row["clauses"])
        if name in seen:
            return "duplicate_formula", f"the formula of {seen[name]} with other names or order"
        seen[name] = row["id"]
        ids.add(row["id"])
        return None

    for split in reversed([*splits]):
        metrics[split] = audit_split(split, splits[split], problem, _Profile(), rejected, keep)
    return Audit(rejected, metrics)


class _Profile:
    """Counts over the rows of a file, added one by one."""

    def __init__(self) -> None:
        self._variables, self._clauses = Counter[int](), Counter[int]()

    def add(self, row: Row) -> None:
        self._variables[row["variables"]] += 1
        self._clauses[len(row["clauses"])] += 1

    def summary(self) -> dict[str, Any]:
        return {
            "variables": {str(count): rows for count, rows in sorted(self._variables.items())},
            "clauses": {str(count): rows for count, rows in sorted(self._clauses.items())},
        }

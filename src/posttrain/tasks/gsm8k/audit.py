"""Check every row before anything trains on it: what is wrong is listed with its reason and left out.

A broken file (truncated JSON, a missing or ill-typed field) ends the audit with one line, see `load`. A row that is
whole but of no use is rejected:

    answer_missing        there is no readable number behind `#### ` on the answer's last line
    duplicate_question    an earlier row, of this or the other file, asks the same; the test file is read first, so
                          that what it shares with train is left out of train

Calculator annotations are executed again. A result that is not what its expression gives is no ground to reject the
row, whose final number may be right; it is counted, and listed in disagreements.jsonl.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.files import atomic_directory, write_jsonl
from posttrain.tasks.auditing import Audit, Rejected, count_words, describe_lengths, write_audit
from posttrain.tasks.gsm8k.arithmetic import format_number, read_number
from posttrain.tasks.gsm8k.load import FILES, load_rows
from posttrain.tasks.gsm8k.reading import MARK, Step, read_steps, strict_answer

Row = Mapping[str, Any]
_SPACE = re.compile(r"\s+")


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,test}.jsonl, rejected.jsonl and disagreements.jsonl into `directory`; return the metrics."""
    splits = {split: load_rows(source / name) for split, name in FILES.items()}
    result = audit_splits(splits)
    with atomic_directory(directory) as output:
        write_audit(result, source, FILES, output)
        found = [line for rows in splits.values() for line in disagreements(rows)]
        write_jsonl(output / "disagreements.jsonl", found)
    return result.metrics


def audit_splits(splits: Mapping[str, Sequence[dict[str, Any]]]) -> Audit:
    """Audit all files together."""
    clean: dict[str, list[dict[str, Any]]] = {}
    rejected: list[Rejected] = []
    metrics: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for split, rows in sorted(splits.items()):  # test before train
        clean[split] = []
        reasons: Counter[str] = Counter()
        for index, row in enumerate(rows):
            problem = _problem(row, seen)
            if problem is None:
                seen[_asked(row)] = row["id"]
                clean[split].append(row)
            else:
                rejected.append(Rejected(split, index, row["id"], *problem))
                reasons[problem[0]] += 1
        metrics[split] = {
            "rows": len(rows),
            "clean": len(clean[split]),
            "rejected": dict(sorted(reasons.items())),
            "annotations": _annotations(rows),
            "steps": dict(sorted(Counter(str(len(_steps(row))) for row in rows).items())),
            "length": describe_lengths(
                [count_words(f"{row['question']} {row['answer']}") for row in rows]
            ),
        }
    return Audit(clean, rejected, metrics)


def disagreements(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The annotations whose result is not what their expression gives, or that are no arithmetic."""
    return [
        {
            "id": row["id"],
            "expression": step.expression,
            "stated": step.stated,
            "value": None if step.value is None else format_number(step.value),
            "error": step.error,
        }
        for row in rows
        for step in _steps(row)
        if not step.right
    ]


def _problem(row: Row, seen: Mapping[str, str]) -> tuple[str, str] | None:
    """(reason, detail) for a row that must be left out, else None."""
    last = row["answer"].strip().rpartition("\n")[2]
    if not last.startswith(MARK) or strict_answer(last) is None:
        return (
            "answer_missing",
            f"the last line of the answer is {last[:60]!r}, not #### and a number",
        )
    if _asked(row) in seen:
        return "duplicate_question", f"the same question as {seen[_asked(row)]}"
    return None


def _asked(row: Row) -> str:
    return _SPACE.sub(" ", row["question"]).strip().lower()


def _steps(row: Row) -> list[Step]:
    return read_steps(row["answer"], "keep")


def _annotations(rows: Sequence[Row]) -> dict[str, int]:
    """How many annotations there are, by whether the result is the value, rounded, another, or there is no value."""
    found = Counter(map(_verdict, (step for row in rows for step in _steps(row))))
    return {
        "total": found.total(),
        **{name: found[name] for name in ("exact", "rounded", "disagree", "invalid")},
        "rows_without": sum(not _steps(row) for row in rows),
        "rows_disagreeing": sum(any(not step.right for step in _steps(row)) for row in rows),
    }


def _verdict(step: Step) -> str:
    if step.value is None:
        return "invalid"
    if read_number(step.stated) == step.value:
        return "exact"
    return "rounded" if step.right else "disagree"

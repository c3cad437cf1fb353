"""The audit of every question: those left out are listed with a reason.

not_writable          see `tasks.auditing`
not_convertible       a task of MBPP that has no cases in the form of this task, see `mbpp`
reference_fails       the reference program does not give the expected outputs in the sandbox
duplicate_question    an earlier row, of this or another split, asks the same
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory, iterate_jsonl
from posttrain.tasks import SPLITS
from posttrain.tasks.auditing import write_audit
from posttrain.tasks.ded import mbpp
from posttrain.tasks.ded.prompt import target
from posttrain.tasks.ded.score import score_all
from posttrain.tasks.references import Row, audit_references


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write the sound rows of each split, and rejected.jsonl, into `directory`; return the metrics."""
    stored = (source / mbpp.FILE).is_file()
    splits = _stored(source / mbpp.FILE) if stored else _generated(source)
    files = {split: mbpp.FILE if stored else f"{split}.jsonl" for split in splits}
    with atomic_directory(directory) as output:
        return write_audit(
            partial(audit_references, splits, _failing), source, files, output
        ).metrics


def _generated(source: Path) -> dict[str, list[Row]]:
    return {split: [*iterate_jsonl(source / f"{split}.jsonl")] for split in SPLITS}


def _stored(file: Path) -> dict[str, list[Row]]:
    """MBPP's rows by split; one that cannot be converted has the reason as `not_convertible`."""
    splits: dict[str, list[Row]] = {"train": [], "test": []}
    for row in mbpp.iterate_rows(file):
        try:
            made = mbpp.convert(row)
        except ValueError as error:
            made = {"id": row["task_id"], "question": row["prompt"], "not_convertible": str(error)}
        splits[mbpp.split_of(row)].append(made)
    return splits


def _failing(rows: Iterable[Row]) -> dict[str, str]:
    """How the reference programs fail on shown and hidden cases, by id of the row."""
    whole = [row | {"hidden": [*row["shown"], *row["hidden"]]} for row in rows if "program" in row]
    scores = score_all([target(row) for row in whole], whole)
    return {
        row["id"]: str(score.failure)
        for row, score in zip(whole, scores, strict=True)
        if not score.correct
    }

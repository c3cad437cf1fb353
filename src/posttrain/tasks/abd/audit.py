"""The audit of every question, with the reasons of `posttrain.tasks.references` and `tasks.auditing`.

A reference fails if the known input does not give the output, or is no literal.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory, iterate_jsonl
from posttrain.tasks import SPLITS
from posttrain.tasks.abd import cruxeval
from posttrain.tasks.abd.prompt import target
from posttrain.tasks.abd.score import score_all
from posttrain.tasks.auditing import write_audit
from posttrain.tasks.references import Row, audit_references


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Write the sound rows of each split, and rejected.jsonl, into `directory`; return the metrics."""
    files = {split: f"{split}.jsonl" for split in SPLITS}
    stored = source / cruxeval.FILE
    if stored.is_file():
        files["test"] = cruxeval.FILE
    splits = {
        split: [*(cruxeval.iterate_rows if name == cruxeval.FILE else iterate_jsonl)(source / name)]
        for split, name in files.items()
    }
    with atomic_directory(directory) as output:
        return write_audit(
            partial(audit_references, splits, _failing), source, files, output
        ).metrics


def _failing(rows: list[Row]) -> dict[str, str]:
    scores = score_all([target(row) for row in rows], rows)
    return {
        row["id"]: str(score.failure)
        for row, score in zip(rows, scores, strict=True)
        if not score.correct
    }

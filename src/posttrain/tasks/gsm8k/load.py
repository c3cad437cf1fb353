"""Read a GSM8K file, one JSON object with `question` and `answer` per line, and give each row a stable id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.files import read_jsonl

# Validation questions come out of `train`, in stage prepare: upstream has no split for them.
FILES = {"train": "train.jsonl", "test": "test.jsonl"}


def load_rows(path: Path) -> list[dict[str, Any]]:
    """The rows with `id` (gsm8k-train-00001 is the first of train.jsonl); `UserError` names file, row and field."""
    rows = read_jsonl(path)
    if not rows:
        raise UserError(f"{path}: the file has no rows")
    for index, row in enumerate(rows):
        for field in ("question", "answer"):
            if field not in row:
                raise UserError(f"{path}: row {index}: field '{field}' is missing")
            value = row[field]
            if not isinstance(value, str) or not value.strip():
                found = repr(value) if isinstance(value, str | float) else type(value).__name__
                raise UserError(
                    f"{path}: row {index}: field '{field}' must be a non-empty string, found {found}"
                )
    return [
        {"id": f"gsm8k-{path.stem}-{number:05d}", **row} for number, row in enumerate(rows, start=1)
    ]

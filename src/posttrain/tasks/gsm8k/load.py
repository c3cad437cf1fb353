"""Reading a GSM8K file, one JSON object with `question` and `answer` per line; each row gets a stable id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl

# Upstream has no validation split; stage `examples` takes one out of `train`.
FILES = {"train": "train.jsonl", "test": "test.jsonl"}


def load_rows(path: Path) -> list[dict[str, Any]]:
    """The rows with `id` (gsm8k-train-00001 is the first of train.jsonl); `UserError`, with file and row, for a bad one."""
    return list(iterate_rows(path))


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `load_rows` one by one, so that they need not be in memory together."""
    index = -1
    for index, given in enumerate(iterate_jsonl(path)):
        row = {"id": f"gsm8k-{path.stem}-{index + 1:05d}", **given}
        for field in ("id", "question", "answer"):
            if field not in row:
                raise UserError(f"{path}: row {index}: field '{field}' is missing")
            value = row[field]
            if not isinstance(value, str) or not value.strip():
                found = repr(value) if isinstance(value, str | float) else type(value).__name__
                raise UserError(
                    f"{path}: row {index}: field '{field}' must be a non-empty string, found {found}"
                )
        yield row
    if index < 0:
        raise UserError(f"{path}: the file has no rows")

"""Reading a file of formulas, one JSON object with `variables` and `clauses` per line; each row gets a stable id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl

FILES = {"train": "train.jsonl", "val": "val.jsonl", "test": "test.jsonl"}


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows with `id` (sat-train-00001 is the first of train.jsonl) and `level` (0 if the row has none).

    `UserError`, with file and row, for a field that is missing or of another type, and for a file without rows.
    """
    index = -1
    for index, given in enumerate(iterate_jsonl(path)):
        row = {"id": f"sat-{path.stem}-{index + 1:05d}", "level": 0, **given}
        for field, kind, right in (
            ("id", "a non-empty string", lambda value: isinstance(value, str) and value.strip()),
            ("variables", "a whole number", _whole),
            ("clauses", "a list of lists of whole numbers", _clauses),
            ("level", "a whole number", _whole),
        ):
            if field not in row:
                raise UserError(f"{path}: row {index}: field '{field}' is missing")
            if not right(row[field]):
                raise UserError(f"{path}: row {index}: field '{field}' must be {kind}")
        yield row
    if index < 0:
        raise UserError(f"{path}: the file has no rows")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _clauses(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(clause, list) and all(map(_whole, clause)) for clause in value
    )

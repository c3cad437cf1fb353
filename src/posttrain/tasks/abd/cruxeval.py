"""CRUXEval (Gu et al. 2024), cruxeval.jsonl, as rows of this task: a test set, never trained on.

A row has a function `f`; the answer is its arguments as Python literals, separated by commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl

FILE = "cruxeval.jsonl"
PATH = f"data/{FILE}"


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows in the form of this task; `UserError`, with file and row, for one that lacks a field."""
    index = -1
    for index, row in enumerate(iterate_jsonl(path)):
        for field in ("code", "input", "output", "id"):
            if not isinstance(row.get(field), str):
                raise UserError(f"{path}: row {index}: field '{field}' must be a string")
        yield {
            "id": row["id"],
            "question": row["code"],
            "output": row["output"],
            "input": row["input"],
            "call": "f",
        }
    if index < 0:
        raise UserError(f"{path}: the file has no rows")

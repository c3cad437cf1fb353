"""Reading a FinQA split in its original layout, with a check of its structure.

A split is one JSON list. Each row holds `id`, `filename`, `pre_text` and `post_text` (lists of sentences), `table`
(list of rows of strings; row 0 is the header) and `qa` with `question`, `program`, `exe_ans` and `gold_inds`
(`"table_3"` and `"text_12"` mapped to the fact's words; text indices run over `pre_text + post_text`). Other fields
(`tier`, `table_ori`, `qa.answer`, `qa.program_re`, ...) are optional.

Left out: whether a row makes sense, which the audit checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_json_array

# The stages call the middle split `val`; its file keeps FinQA's name.
SPLIT_FILES = {"train": "train.json", "val": "dev.json", "test": "test.json"}


def load_split(path: Path) -> list[dict[str, Any]]:
    """The rows of one split file; `UserError`, with file, row and field, if one is broken."""
    return list(iterate_split(path))


def iterate_split(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `load_split` one by one, so that they need not be in memory together."""
    index = -1
    for index, row in enumerate(iterate_json_array(path)):
        check_structure(row, where=f"{path}: row {index}")
        yield row
    if index < 0:
        raise UserError(f"{path}: the list of rows is empty")


def check_structure(row: Any, where: str) -> None:
    """`UserError("<where>: ...")` if a field is missing or has the wrong type."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object, found {type(row).__name__}")
    for field, (accepts, expected) in _ROW_FIELDS.items():
        _check_field(row, field, field, accepts, expected, where)
    for field, (accepts, expected) in _QA_FIELDS.items():
        _check_field(row["qa"], field, f"qa.{field}", accepts, expected, where)


def _check_field(
    holder: dict[str, Any],
    field: str,
    name: str,
    accepts: Callable[[Any], bool],
    expected: str,
    where: str,
) -> None:
    if field not in holder:
        raise UserError(f"{where}: field '{name}' is missing")
    value = holder[field]
    if not accepts(value):
        found = type(value).__name__ if not isinstance(value, float) else repr(value)
        raise UserError(f"{where}: field '{name}' must be {expected}, found {found}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_filled_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text_list(row) for row in value)


def _is_answer(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 1 << 1023
    if isinstance(value, float):
        return math.isfinite(value)
    return value in ("yes", "no")


def _is_facts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


_ROW_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (_is_filled_text, "a non-empty string"),
    "filename": (_is_text, "a string"),
    "pre_text": (_is_text_list, "a list of strings"),
    "post_text": (_is_text_list, "a list of strings"),
    "table": (_is_table, "a list of rows, each a list of strings"),
    "qa": (lambda value: isinstance(value, dict), "an object"),
}
_QA_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "question": (_is_filled_text, "a non-empty string"),
    "program": (_is_text, "a string"),
    "exe_ans": (_is_answer, "a finite number, 'yes' or 'no'"),
    "gold_inds": (_is_facts, "an object of strings"),
}

"""MBPP (Austin et al. 2021) in the file mbpp_release_v1.jsonl of MBXP (Athiwaratkun et al. 2023), as rows of this task.

An answer to these is a function, called with the arguments that stand on stdin as a Python literal; its result is printed.
So the row has `call`, the function's name; the first case is shown, the others are hidden. MBPP's split: the tasks 11 to
510 are the test split.

Not converted: a task of which an assertion is not `candidate(literals) == literal`, or that has fewer than two.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl

FILE = "mbpp_release_v1.jsonl"
PATH = f"data/mbxp/{FILE}"
TEST = range(11, 511)
FIELDS = ("task_id", "prompt", "canonical_solution", "entry_point", "test")

_PROMPT = re.compile(
    r"(?P<head>.*?)(?P<quotes>\"{3}|'{3})(?P<told>.*?)(?:>>>|(?P=quotes))", re.DOTALL
)


def iterate_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the file; `UserError`, with file and row, for one that lacks a field."""
    index = -1
    for index, row in enumerate(iterate_jsonl(path)):
        for field in FIELDS:
            if not isinstance(row.get(field), str):
                raise UserError(f"{path}: row {index}: field '{field}' must be a string")
        yield row
    if index < 0:
        raise UserError(f"{path}: the file has no rows")


def split_of(row: dict[str, Any]) -> str:
    """The split of a row, `train` or `test`."""
    number = row["task_id"].rpartition("/")[2]
    return "test" if number.isdecimal() and int(number) in TEST else "train"


def convert(row: dict[str, Any]) -> dict[str, Any]:
    """The row of this task; `ValueError` says why there is none."""
    cases = [list(case) for case in _cases(row["test"])]
    if len(cases) < 2:
        raise ValueError("fewer than two cases, so none would be hidden")
    found = _PROMPT.match(row["prompt"])
    if found is None:
        raise ValueError("the prompt has no docstring")
    head, told = found["head"].strip(), " ".join(found["told"].split())
    signature = head.rpartition("def ")[2].rstrip(" :")
    return {
        "id": row["task_id"],
        "question": f"{told} The function is {signature}.",
        "program": f"{head}\n{row['canonical_solution'].rstrip()}",
        "call": row["entry_point"],
        "shown": cases[:1],
        "hidden": cases[1:],
    }


def _cases(test: str) -> Iterator[tuple[str, str]]:
    """(arguments as a tuple, result) of each assertion, as Python literals."""
    try:
        tree = ast.parse(test)
    except SyntaxError as error:
        raise ValueError(f"the tests cannot be read: {error.msg}") from error
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assert):
            continue
        match node.test:
            case ast.Compare(
                left=ast.Call(func=ast.Name(id="candidate"), args=arguments, keywords=[]),
                ops=[ast.Eq()],
                comparators=[result],
            ):
                try:
                    values = tuple(ast.literal_eval(each) for each in arguments)
                    yield repr(values), repr(ast.literal_eval(result))
                except ValueError as error:
                    raise ValueError(f"{ast.unparse(node)[:80]}: no literals") from error
            case _:
                raise ValueError(f"{ast.unparse(node)[:80]}: no comparison with a value")

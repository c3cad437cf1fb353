"""Rendering examples once for all later stages, with the texts of prompts and gold answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import Variant
from posttrain.tasks import Task


def render(
    task: Task, example: dict[str, Any], variants: Sequence[Variant], tolerance: float
) -> dict[str, Any]:
    """The example with `tolerance`, `prompts` (direct, and those of `variants`) and `target`."""
    example = {**example, "tolerance": tolerance}
    prompts = {
        variant: task.prompt(example, variant) for variant in dict.fromkeys(("direct", *variants))
    }
    return {**example, "prompts": prompts, "target": task.target(example)}


def rendered(
    task: Task, rows: Iterable[dict[str, Any]], variants: Sequence[Variant], tolerance: float
) -> Iterator[dict[str, Any]]:
    """`render` of each row; `UserError` for a row without `id` or `question`, and for a repeated id."""
    seen: set[str] = set()
    for number, row in enumerate(rows):
        for name in ("id", "question"):
            if not isinstance(row.get(name), str):
                raise UserError(f"example {number} of the task has no text {name!r}")
        if row["id"] in seen:
            raise UserError(f"example {number} of the task: id {row['id']!r} is there twice")
        seen.add(row["id"])
        yield render(task, row, variants, tolerance)

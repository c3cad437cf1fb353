"""One record per completion: what was written, what the task's scorer says of it, and its reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.tasks import Example, Task

DIGITS = 6


def score_completion(
    task: Task,
    example: Example,
    text: str,
    tolerance: float,
    weights: Mapping[str, float],
    *,
    variant: str,
    index: int,
    tokens: int,
    finished: bool,
) -> dict[str, Any]:
    """The record of one completion. `tokens` and `finished` are what the sampler says of it."""
    verdict = task.score(text, example, tolerance)
    return {
        "id": example["id"],
        "variant": variant,
        "index": index,
        "text": text,
        "tokens": tokens,
        "finished": finished,
        "status": verdict.status,
        "failure": verdict.failure,
        "value": verdict.value,
        "answer": verdict.answer,
        "components": dict(verdict.components),
        "quality": {name: round(part, DIGITS) for name, part in verdict.quality.items()},
        "reward": round(task.reward(verdict.components, weights), DIGITS),
        "correct": verdict.execution_correct,
        "program_correct": verdict.program_correct,
        "answer_strict": verdict.answer_strict,
        "answer_lenient": verdict.answer_lenient,
    }

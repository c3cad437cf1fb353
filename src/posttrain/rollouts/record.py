"""One record per completion: its text, the task's score of it, and its reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.tasks import Example, Score, Task
from posttrain.tasks.reward import reward

DIGITS = 6


def score_completion(
    task: Task,
    example: Example,
    text: str,
    weights: Mapping[str, float],
    *,
    variant: str,
    index: int,
    tokens: int,
    finished: bool,
    verdict: Score | None = None,
) -> dict[str, Any]:
    """The record of one completion; `tokens` and `finished` come from the sampler, `verdict` from `scores` of the task."""
    verdict = verdict or task.score(text, example)
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
        "parts": dict(verdict.parts),
        "quality": {name: round(part, DIGITS) for name, part in verdict.quality.items()},
        "reward": round(reward(verdict.parts, weights), DIGITS),
        "correct": verdict.correct,
        "program_correct": verdict.program_correct,
        "answer_strict": verdict.answer_strict,
        "answer_lenient": verdict.answer_lenient,
    }

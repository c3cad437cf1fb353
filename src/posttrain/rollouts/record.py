"""One record per completion, or per episode: its text, the score of it, and its reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.measures.episodes import RETURN
from posttrain.rollouts.episode import Episode
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
    earned = round(reward(verdict.parts, weights), DIGITS)
    return {
        "id": example["id"],
        "variant": variant,
        "index": index,
        "text": text,
        "tokens": tokens,
        "finished": finished,
        **_judged(verdict, earned),
    }


def _judged(verdict: Score, earned: float) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "failure": verdict.failure,
        "value": verdict.value,
        "answer": verdict.answer,
        "parts": dict(verdict.parts),
        "quality": {name: round(part, DIGITS) for name, part in verdict.quality.items()},
        "reward": earned,
        "correct": verdict.correct,
        "program_correct": verdict.program_correct,
        "answer_strict": verdict.answer_strict,
        "answer_lenient": verdict.answer_lenient,
    }


def score_episode(episode: Episode, *, policy: str, index: int) -> dict[str, Any]:
    """The record of an episode: `Episode.record`, and the columns of a completion.

    Its answer is right if it ends at the goal, its reward is its score, and an end that is not the goal is its failure. One
    that ended with an error is not scored. The answer to a question has the columns of its task.
    """
    correct = episode.end == "goal"
    in_form = [step.action is not None for step in episode.steps]
    written = {
        **episode.record(policy),
        "variant": "direct",
        "index": index,
        "text": "\n".join(step.text for step in episode.steps),
        "tokens": sum(sum(row.lengths) for row in episode.rows),
        "finished": all(step.finished for step in episode.steps),
    }
    if episode.verdict is not None:
        return written | _judged(episode.verdict, round(episode.score, DIGITS))
    return {
        **written,
        "status": "unscorable" if episode.end == "error" else "scored",
        "failure": None if correct else episode.end,
        "value": None,
        "answer": None,
        "parts": {
            RETURN: round(episode.score, DIGITS),
            "format_valid": round(sum(in_form) / max(1, len(in_form)), DIGITS),
        },
        "quality": {},
        "reward": round(episode.score, DIGITS),
        "correct": correct,
        "program_correct": correct,
        "answer_strict": correct,
        "answer_lenient": correct,
    }

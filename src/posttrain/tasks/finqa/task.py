"""The FinQA task behind `posttrain.tasks.get_task("finqa")`; see the protocol there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posttrain.core.params import Params
from posttrain.tasks import Example
from posttrain.tasks.finqa.audit import audit
from posttrain.tasks.finqa.candidates import Candidate, collect_shapes, make_candidates
from posttrain.tasks.finqa.explain import explain
from posttrain.tasks.finqa.fetch import fetch
from posttrain.tasks.finqa.prepare import prepare
from posttrain.tasks.finqa.program import format_answer
from posttrain.tasks.finqa.prompt import (
    prompt_hash,
    render_answer,
    render_prompt,
)
from posttrain.tasks.finqa.score import Score, read_answer, score
from posttrain.tasks.reward import reward

__all__ = [
    "Score",
    "audit",
    "calculate",
    "candidate_maker",
    "describe",
    "explain",
    "fetch",
    "prepare",
    "prompt_hash",
    "render_prompt",
    "render_target",
    "reward",
    "score",
]


def render_target(example: Example) -> str:
    """The gold answer as a model should write it."""
    return render_answer(example["target_program"], example["target_answer"])


def calculate(text: str, example: Example) -> str:
    """The answer with its program's value as the stated answer; unchanged if it does not execute."""
    found, value = read_answer(text), score(text, example, tolerance=0.0).value
    if found is None or value is None:
        return text
    return render_answer(found[0], format_answer(value))


def candidate_maker(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """What makes n candidates for an example; see `candidates`."""
    chosen, shapes = params.candidates, collect_shapes(train)
    return lambda example, size: make_candidates(
        example,
        shapes,
        count=size,
        corruption_rate=chosen.corruption_rate,
        noise=(chosen.noise[0], chosen.noise[1]),
        seed=chosen.seed,
    )


def describe(params: Params) -> dict[str, str]:
    """Lines of the report: how `params` makes pages and answers."""
    return {"page": f"context {params.prepare.context}, operands as {params.operands}"}

"""The FinQA task behind `posttrain.tasks.get_task("finqa")`; see the protocol there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posttrain.params import Params
from posttrain.tasks import Example
from posttrain.tasks.finqa import pools
from posttrain.tasks.finqa.audit import audit
from posttrain.tasks.finqa.candidates import Candidate
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
    "describe",
    "explain",
    "fetch",
    "pool_maker",
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


def pool_maker(params: Params, train: Iterable[Example]) -> Callable[[Example], list[Candidate]]:
    """What makes the K candidates for an example; see `posttrain.tasks.finqa.pools`."""
    chosen = params.candidates
    return pools.pool_maker(
        train,
        count=chosen.count,
        corruption_rate=chosen.corruption_rate,
        noise=(chosen.noise[0], chosen.noise[1]),
        oversample=chosen.oversample,
        seed=chosen.seed,
        tolerance=params.rewards.tolerance,
    )


def describe(params: Params) -> dict[str, str]:
    """Lines of the report: how `params` makes pages and answers."""
    return {"page": f"context {params.prepare.context}, operands as {params.operands}"}

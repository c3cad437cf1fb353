"""The GSM8K task behind `posttrain.tasks.get_task("gsm8k")`; see the protocol there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posttrain.core.params import Params
from posttrain.tasks import Example, read_options
from posttrain.tasks.gsm8k.audit import audit
from posttrain.tasks.gsm8k.candidates import Candidate, collect_habits, make_candidates
from posttrain.tasks.gsm8k.explain import explain
from posttrain.tasks.gsm8k.fetch import fetch
from posttrain.tasks.gsm8k.options import Options
from posttrain.tasks.gsm8k.prepare import prepare
from posttrain.tasks.gsm8k.prompt import prompt_hash, render_prompt, render_target
from posttrain.tasks.gsm8k.reading import execute
from posttrain.tasks.gsm8k.score import Score, score
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


def calculate(text: str, example: Example) -> str:
    """The answer with the calculator's results, where the data set's options give it the last word."""
    return execute(text) if example["annotations"] == "execute" else text


def candidate_maker(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """What makes n candidates for an example; see `candidates`."""
    chosen, habits = params.candidates, collect_habits(train)
    return lambda example, size: make_candidates(
        example,
        habits,
        count=size,
        corruption_rate=chosen.corruption_rate,
        noise=(chosen.noise[0], chosen.noise[1]),
        seed=chosen.seed,
    )


def describe(params: Params) -> dict[str, str]:
    """Lines of the report: how `params` makes pages and answers."""
    return {"answers": f"annotations: {read_options(params, Options).annotations}"}

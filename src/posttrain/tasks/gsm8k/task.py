"""The GSM8K task behind `posttrain.tasks.get_task("gsm8k")`; see the protocol there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posttrain.params import Params
from posttrain.tasks import Example, pools, read_options
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


def calculate(text: str, example: Example) -> str:
    """The answer with the calculator's results, where the data set's options give it the last word."""
    return execute(text) if example["annotations"] == "execute" else text


def pool_maker(params: Params, train: Iterable[Example]) -> Callable[[Example], list[Candidate]]:
    """What makes the K candidates for an example; see `candidates`."""
    chosen = params.candidates
    habits = collect_habits(train)
    return pools.pool_maker(
        train,
        lambda example, size: make_candidates(
            example,
            habits,
            count=size,
            corruption_rate=chosen.corruption_rate,
            noise=(chosen.noise[0], chosen.noise[1]),
            seed=chosen.seed,
        ),
        lambda text, example: score(text, example, params.rewards.tolerance),
        count=chosen.count,
        corruption_rate=chosen.corruption_rate,
        oversample=chosen.oversample,
        seed=chosen.seed,
    )


def describe(params: Params) -> dict[str, str]:
    """Lines of the report: how `params` makes pages and answers."""
    return {"answers": f"annotations: {read_options(params, Options).annotations}"}

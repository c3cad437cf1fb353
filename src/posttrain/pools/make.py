"""Candidate pools of a task: what its `candidate_maker` makes, filtered by `pools.filter`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from posttrain.core.params import Params
from posttrain.pools.filter import filtered
from posttrain.tasks import Candidate, Example, Task


def pool_maker(
    task: Task, params: Params, train: Iterable[Example]
) -> Callable[[Example], Sequence[Candidate]]:
    """What makes an example's pool: exactly `candidates.count` distinct candidates, gold once, in random order.

    What is typical of an answer is learned from `train` alone, which is iterated over more than once.
    """
    chosen = params.candidates
    return filtered(
        train,
        task.candidate_maker(params, train),
        lambda text, example: task.score(text, example, params.rewards.tolerance),
        count=chosen.count,
        corruption_rate=chosen.corruption_rate,
        oversample=chosen.oversample,
        seed=chosen.seed,
    )

"""Candidate pools of FinQA: `candidates.make_candidates` for a question, then the filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from posttrain.tasks import Example, pools
from posttrain.tasks.finqa.candidates import Candidate, collect_shapes, make_candidates
from posttrain.tasks.finqa.score import score


def pool_maker(
    train: Iterable[Example],
    *,
    count: int,
    corruption_rate: float,
    noise: tuple[float, float],
    oversample: int,
    seed: int,
    tolerance: float,
) -> Callable[[Example], list[Candidate]]:
    """What makes an example's pool: exactly `count` distinct candidates, gold once, in random order.

    `train` is iterated over twice.
    """
    shapes = collect_shapes(train)
    return pools.pool_maker(
        train,
        lambda example, size: make_candidates(
            example, shapes, count=size, corruption_rate=corruption_rate, noise=noise, seed=seed
        ),
        lambda text, example: score(text, example, tolerance),
        count=count,
        corruption_rate=corruption_rate,
        oversample=oversample,
        seed=seed,
    )

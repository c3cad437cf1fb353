"""Candidate pools of whole splits, filtered so that the candidates alone tell little of which is right.

A task makes `oversample` times as many wrong candidates for each question as the pool needs, and the ones kept are
drawn with probability proportional to exp(score) of a linear model that never sees page or question, fitted on the
training split's larger pools: adversarial filtering (Zellers et al., SWAG, EMNLP 2018; one round). Wrong candidates
that look wrong by themselves become rare; the share of corrupted ones stays `corruption_rate`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from posttrain.pools.blind import Pool, blind_scores, fit_blind_model
from posttrain.tasks import Candidate, Example, Score

Made = TypeVar("Made", bound=Candidate)


def filtered(
    train: Iterable[Example],
    make: Callable[[Example, int], Sequence[Made]],
    score: Callable[[str, Example], Score],
    *,
    count: int,
    corruption_rate: float,
    oversample: int,
    seed: int,
) -> Callable[[Example], Sequence[Made]]:
    """What makes an example's pool: exactly `count` distinct candidates, gold once, in random order.

    `make(example, n)` makes such a pool of n, unfiltered and always the same; `oversample` 1 leaves it so.
    """
    if oversample == 1:
        return lambda example: make(example, count)
    larger = 1 + oversample * (count - 1)
    # Larger pools are made again where they are filtered: all of them would take more memory than anything else.
    model = fit_blind_model(_view(make(example, larger), example, score) for example in train)

    def make_filtered(example: Example) -> Sequence[Made]:
        pool = make(example, larger)
        scores = blind_scores(_view(pool, example, score), model).tolist()
        return _filter(pool, scores, count, corruption_rate, f"{seed}/{example['id']}")

    return make_filtered


def _view(
    pool: Sequence[Candidate], example: Example, score: Callable[[str, Example], Score]
) -> Pool:
    view = []
    for made in pool:
        verdict = score(made.text, example)
        view.append(
            {
                "text": made.text,
                "answer": verdict.answer,
                "consistent": verdict.self_consistent,
                "correct": verdict.execution_correct,
            }
        )
    return view


def _filter(
    pool: Sequence[Made],
    scores: Sequence[float],
    count: int,
    corruption_rate: float,
    seed: str,
) -> list[Made]:
    """Gold, and `count - 1` others: how many of each kind is drawn first, then which, by score."""
    rng = random.Random(f"filter/{seed}")
    # The largest of score + Gumbel noise are a sample without replacement in proportion to exp(score).
    keys = [score - math.log(-math.log(rng.random() or 0.5)) for score in scores]
    order = sorted(range(len(pool)), key=lambda index: -keys[index])
    corrupted = sum(rng.random() < corruption_rate for _ in range(count - 1))
    room = {"gold": 1, "corrupted": corrupted, "plausible": count - 1 - corrupted}
    kept = []
    for index in order:
        if room[pool[index].kind] > 0:
            room[pool[index].kind] -= 1
            kept.append(index)
    kept += [index for index in order if index not in kept][: count - len(kept)]
    rng.shuffle(kept)
    return [pool[index] for index in kept]

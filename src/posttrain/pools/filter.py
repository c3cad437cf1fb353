"""Filtering of pools, so that the candidates alone reveal little about which one is correct.

This is adversarial filtering (Zellers et al., SWAG, EMNLP 2018) with one round. A task makes `oversample` times as many
wrong candidates as a pool needs. Those to keep are sampled with probability proportional to exp(score), by the score of
a linear model that sees neither page nor question and is fitted on the larger pools of the training split. Candidates
that look wrong by themselves become rare, while the rate of corrupted ones stays `corruption_rate`.
"""

from __future__ import annotations

import math
import random
from typing import Any

from posttrain.core.params import Pools
from posttrain.pools.blind import Array, blind_scores


def filter_pool(row: dict[str, Any], model: Array, config: Pools) -> dict[str, Any]:
    """The row with gold and `config.count - 1` of its other candidates, in random order.

    The number of each kind is sampled first, then the candidates, by the model's scores.
    """
    pool, count = row["candidates"], config.count
    rng = random.Random(f"filter/{config.seed}/{row['id']}")
    # The largest values of score + Gumbel noise are a sample without replacement in proportion to exp(score).
    keys = [
        score - math.log(-math.log(rng.random() or 0.5))
        for score in blind_scores(pool, model).tolist()
    ]
    order = sorted(range(len(pool)), key=lambda index: -keys[index])
    corrupted = sum(rng.random() < config.corruption_rate for _ in range(count - 1))
    room = {"gold": 1, "corrupted": corrupted, "plausible": count - 1 - corrupted}
    kept = []
    for index in order:
        kind = pool[index]["kind"]
        if room.get(kind, 0) > 0:
            room[kind] -= 1
            kept.append(index)
    kept += [index for index in order if index not in kept][: count - len(kept)]
    rng.shuffle(kept)
    return {**row, "candidates": [pool[index] for index in kept]}

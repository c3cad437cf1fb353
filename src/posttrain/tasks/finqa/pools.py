"""Candidate pools of whole splits: `candidates.make_candidates` for each question, then the filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.tasks import pools
from posttrain.tasks.finqa.candidates import Candidate, collect_shapes, make_candidates
from posttrain.tasks.finqa.score import score


def build_pools(
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    count: int,
    corruption_rate: float,
    noise: tuple[float, float],
    oversample: int,
    seed: int,
    tolerance: float,
) -> dict[str, list[list[Candidate]]]:
    """For each split a pool of exactly `count` distinct candidates per example, gold once, in random order."""
    shapes = collect_shapes(splits["train"])
    return pools.build_pools(
        splits,
        lambda example, size: make_candidates(
            example, shapes, count=size, corruption_rate=corruption_rate, noise=noise, seed=seed
        ),
        lambda text, example: score(text, example, tolerance),
        count=count,
        corruption_rate=corruption_rate,
        oversample=oversample,
        seed=seed,
    )

"""Rewards of candidate pools, and what the pools look like."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.params import Rewards
from posttrain.tasks import Example, Task


def reward_pool(
    task: Task, example: Example, candidates: Sequence[Mapping[str, Any]], rewards: Rewards
) -> dict[str, Any]:
    """One row of data/rewards: the prompt, and each candidate with its verdict and reward.

    An unparseable candidate has reward 0 and says so in `status`, so that no statistic need take it for wrong.
    """
    scored = []
    weights = rewards.weights.model_dump()
    for made in candidates:
        verdict = task.score(made["text"], example, rewards.tolerance)
        scored.append(
            {
                **made,
                "reward": round(task.reward(verdict.components, weights), 6),
                "reward_components": verdict.components,
                "status": verdict.status,
                "failure": verdict.failure,
                "correct": verdict.execution_correct,
                "answer": verdict.answer,
                "consistent": verdict.self_consistent,
            }
        )
    return {"id": example["id"], "prompt": task.render_prompt(example), "candidates": scored}


def summarise_pools(pools: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Counts by kind and edit, mean reward by kind, and answers that could not be scored."""
    made = [candidate for pool in pools for candidate in pool]
    by_kind = defaultdict(list)
    for candidate in made:
        by_kind[candidate["kind"]].append(candidate["reward"])
    slots = Counter(
        index
        for pool in pools
        for index, candidate in enumerate(pool)
        if candidate["kind"] == "gold"
    )
    return {
        "pools": len(pools),
        "candidates": len(made),
        "correct_per_pool": sum(candidate["correct"] for candidate in made) / len(pools),
        "unparseable": sum(candidate["status"] == "unparseable" for candidate in made),
        "unscorable": sum(candidate["status"] == "unscorable" for candidate in made),
        "kinds": {kind: len(rewards) for kind, rewards in sorted(by_kind.items())},
        "edits": dict(sorted(Counter(candidate["edit"] for candidate in made).items())),
        "reward": {kind: sum(r) / len(r) for kind, r in sorted(by_kind.items())},
        "gold_slots": {str(slot): count for slot, count in sorted(slots.items())},
    }

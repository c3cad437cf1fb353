"""Rewards of candidate pools, and what the pools look like."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Rewards
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


@dataclass(frozen=True, slots=True)
class RewardedPools:
    """The candidates of each row of a file of data/rewards, read anew whenever they are iterated over."""

    path: Path

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return (row["candidates"] for row in iterate_jsonl(self.path))


def summarise_pools(pools: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Counts by kind and edit, mean reward by kind, and answers that could not be scored."""
    rewards: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
    edits, statuses, slots = Counter[str](), Counter[str](), Counter[int]()
    count = correct = 0
    for pool in pools:
        count += 1
        for slot, made in enumerate(pool):
            rewards[made["kind"]].append(made["reward"])
            edits[made["edit"]] += 1
            statuses[made["status"]] += 1
            slots[slot] += made["kind"] == "gold"
            correct += made["correct"]
    return {
        "pools": count,
        "candidates": edits.total(),
        "correct_per_pool": correct / count,
        "unparseable": statuses["unparseable"],
        "unscorable": statuses["unscorable"],
        "kinds": {kind: len(found) for kind, found in sorted(rewards.items())},
        "edits": dict(sorted(edits.items())),
        "reward": {kind: sum(found) / len(found) for kind, found in sorted(rewards.items())},
        "gold_slots": {str(slot): times for slot, times in sorted(slots.items()) if times},
    }

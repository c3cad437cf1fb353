"""Rewards of candidate pools, and a summary of the pools."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.tasks import Candidate, Example, Task
from posttrain.tasks.reward import reward


def reward_pool(
    task: Task, example: Example, candidates: Sequence[Candidate], weights: Mapping[str, float]
) -> dict[str, Any]:
    """One row of data/pools: the prompt, and each candidate with its verdict and reward; `part` in a mixture.

    An unparseable candidate has reward 0; its `status` tells it apart from a wrong one.
    """
    scored = []
    texts = [made.text for made in candidates]
    verdicts = task.scores(texts, [example] * len(texts))
    for made, verdict in zip(candidates, verdicts, strict=True):
        scored.append(
            {
                "text": made.text,
                "kind": made.kind,
                "edit": made.edit,
                "reward": round(reward(verdict.parts, weights), 6),
                "parts": verdict.parts,
                "status": verdict.status,
                "failure": verdict.failure,
                "correct": verdict.correct,
                "answer": verdict.answer,
                "consistent": verdict.self_consistent,
            }
        )
    part = {"part": example["part"]} if "part" in example else {}
    prompt = example["prompts"]["direct"]
    return {"id": example["id"], **part, "prompt": prompt, "candidates": scored}


@dataclass(frozen=True, slots=True)
class RewardedPools:
    """The candidates of each row (of a part, where one is named) of a file of data/pools, read again at each iteration."""

    path: Path
    part: str | None = None

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        rows = iterate_jsonl(self.path)
        return (row["candidates"] for row in rows if self.part in (None, row.get("part")))


def summarise_pools(pools: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Counts by kind, edit and gold slot, mean reward by kind, and numbers of unparseable and unscorable candidates."""
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

"""Score every candidate of data/candidates, and audit what can be won without reading the page.

python stages/rewards.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain.evaluation.plots import plot_rewards_by_kind
from posttrain.evaluation.pools import reward_pool, summarise_pools
from posttrain.evaluation.shortcuts import audit_shortcuts
from posttrain.files import atomic_directory, iterate_jsonl, write_json, write_jsonl
from posttrain.params import Params
from posttrain.stage import run
from posttrain.tasks import SPLITS, get_task

# What the statistics below need of a candidate; the rest, mostly prompts, need not stay in memory.
KEPT = ("text", "kind", "edit", "reward", "status", "correct", "answer", "consistent")


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    views: dict[str, list[list[dict[str, Any]]]] = {split: [] for split in SPLITS}

    def scored(split: str) -> Iterator[dict[str, Any]]:
        examples = iterate_jsonl(Path("data/prepare") / f"{split}.jsonl")
        pools = iterate_jsonl(Path("data/candidates") / f"{split}.jsonl")
        for example, pool in zip(examples, pools, strict=True):
            row = reward_pool(task, example, pool["candidates"], params.rewards)
            views[split].append([{key: made[key] for key in KEPT} for made in row["candidates"]])
            yield row

    with atomic_directory("data/rewards") as directory:
        for split in SPLITS:
            write_jsonl(directory / f"{split}.jsonl", scored(split))
    metrics = {
        "pools": {split: summarise_pools(views[split]) for split in SPLITS},
        "shortcuts": audit_shortcuts(
            views["train"], {split: views[split] for split in ("val", "test")}
        ),
    }
    write_json("metrics/rewards.json", metrics)
    plot_rewards_by_kind(views["train"], Path("plots/rewards.png"))


if __name__ == "__main__":
    run(main)

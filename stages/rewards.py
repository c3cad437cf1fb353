"""Score every candidate of data/candidates, and audit what can be won without reading the page.

python stages/rewards.py
"""

from pathlib import Path

from posttrain.core.files import atomic_directory, iterate_jsonl, write_json, write_jsonl
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.pools.blind import audit_shortcuts
from posttrain.pools.rewards import RewardedPools, reward_pool, summarise_pools
from posttrain.report.plots import plot_rewards_by_kind
from posttrain.tasks import SPLITS, get_task

OUTPUT = Path("data/rewards")


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    with atomic_directory(OUTPUT) as directory:
        for split in SPLITS:
            examples = iterate_jsonl(Path("data/prepare") / f"{split}.jsonl")
            made = iterate_jsonl(Path("data/candidates") / f"{split}.jsonl")
            rows = (
                reward_pool(task, example, pool["candidates"], params.rewards)
                for example, pool in zip(examples, made, strict=True)
            )
            write_jsonl(directory / f"{split}.jsonl", rows)
    pools = {split: RewardedPools(OUTPUT / f"{split}.jsonl") for split in SPLITS}
    metrics = {
        "pools": {split: summarise_pools(pools[split]) for split in SPLITS},
        "shortcuts": audit_shortcuts(
            pools["train"], {split: pools[split] for split in ("val", "test")}
        ),
    }
    write_json("metrics/rewards.json", metrics)
    plot_rewards_by_kind(pools["train"], Path("plots/rewards.png"))


if __name__ == "__main__":
    run(main)

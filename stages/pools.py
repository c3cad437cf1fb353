"""Make a pool of K candidate answers for each example, score them, and measure the blind baselines.

python stages/pools.py
"""

from pathlib import Path

from posttrain.core.files import JsonLines, atomic_directory, write_json, write_jsonl
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.pools.blind import blind_baselines
from posttrain.pools.make import make_pools
from posttrain.pools.plots import plot_rewards_by_kind
from posttrain.pools.rewards import RewardedPools, summarise_pools
from posttrain.tasks import SPLITS, get_task

OUTPUT = Path("data/pools")


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    if task.candidates is None:
        print("the task makes no candidates: pools are the gold answers of other questions")
    examples = {split: JsonLines(Path("data/examples") / f"{split}.jsonl") for split in SPLITS}
    with atomic_directory(OUTPUT) as directory:
        for split, rows in make_pools(task, params, examples):
            write_jsonl(directory / f"{split}.jsonl", rows)
    pools = {split: RewardedPools(OUTPUT / f"{split}.jsonl") for split in SPLITS}
    metrics = {
        "pools": {split: summarise_pools(pools[split]) for split in SPLITS},
        "blind": blind_baselines(
            pools["train"], {split: pools[split] for split in ("val", "test")}
        ),
    }
    write_json("metrics/pools.json", metrics)
    plot_rewards_by_kind(pools["train"], Path("plots/pools.png"))


if __name__ == "__main__":
    run(main)

"""Make a pool of K candidate answers for each example, score them, and measure the blind baselines.

python stages/pools.py

For an environment there is no pool, and the reason is written: data/pools/not_trained.json and metrics/pools.json.
"""

from pathlib import Path
from typing import Any

from posttrain.core.figures import write_note
from posttrain.core.files import JsonLines, atomic_directory, write_json, write_jsonl
from posttrain.core.not_trained import NOT_TRAINED
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.pools.blind import blind_baselines
from posttrain.pools.make import make_pools
from posttrain.pools.plots import plot_rewards_by_kind
from posttrain.pools.rewards import RewardedPools, summarise_pools
from posttrain.tasks import SPLITS, get_task

OUTPUT = Path("data/pools")
PLOT = Path("plots/pools.png")
NO_POOLS = (
    "a selector chooses among whole answers, and in an environment each action has its own answer"
)


def main(params: Params) -> None:
    task = get_task(*params.tasks)
    if task.open is not None:
        write_no_pools()
        return
    if task.candidates is None:
        print("the task makes no candidates: pools are the gold answers of other questions")
    examples = {split: JsonLines(Path("data/examples") / f"{split}.jsonl") for split in SPLITS}
    with atomic_directory(OUTPUT) as directory:
        for split, rows in make_pools(task, params, examples):
            write_jsonl(directory / f"{split}.jsonl", rows)
    pools = {split: RewardedPools(OUTPUT / f"{split}.jsonl") for split in SPLITS}
    judged = {(split, ""): pools[split] for split in ("val", "test")}
    for part in params.parts:
        judged |= {(split, part): RewardedPools(pools[split].path, part) for split, _ in [*judged]}
    blind = blind_baselines(pools["train"], judged)
    metrics: dict[str, Any] = {
        "pools": {split: summarise_pools(pools[split]) for split in SPLITS},
        "blind": {split: rates for (split, part), rates in blind.items() if not part},
    }
    if params.parts:
        metrics["parts"] = {
            part: {split: rates for (split, of), rates in blind.items() if of == part}
            for part in params.parts
        }
    write_json("metrics/pools.json", metrics)
    plot_rewards_by_kind(pools["train"], PLOT)


def write_no_pools() -> None:
    """The outputs of this stage with no pool in them, and the reason."""
    with atomic_directory(OUTPUT) as directory:
        for split in SPLITS:
            write_jsonl(directory / f"{split}.jsonl", [])
        write_json(directory / NOT_TRAINED, {"reason": NO_POOLS})
    write_json("metrics/pools.json", {"not_trained": NO_POOLS})
    write_note(PLOT, f"no candidates: {NO_POOLS}")


if __name__ == "__main__":
    run(main)

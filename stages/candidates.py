"""Make a pool of K candidate answers for each example of data/prepare.

python stages/candidates.py
"""

from pathlib import Path

from posttrain.core.files import JsonLines, atomic_directory, write_jsonl
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.pools.make import pool_maker
from posttrain.tasks import SPLITS, get_task


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    examples = {split: JsonLines(Path("data/prepare") / f"{split}.jsonl") for split in SPLITS}
    make = pool_maker(task, params, examples["train"])
    with atomic_directory("data/candidates") as directory:
        for split in SPLITS:
            rows = (
                {
                    "id": example["id"],
                    "candidates": [
                        {"text": made.text, "kind": made.kind, "edit": made.edit}
                        for made in make(example)
                    ],
                }
                for example in examples[split]
            )
            write_jsonl(directory / f"{split}.jsonl", rows)


if __name__ == "__main__":
    run(main)

"""Make a pool of K candidate answers for each example of data/prepare.

python stages/candidates.py
"""

from pathlib import Path

from posttrain.files import JsonLines, atomic_directory, write_jsonl
from posttrain.params import Params
from posttrain.stage import run
from posttrain.tasks import SPLITS, get_task


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    examples = {split: JsonLines(Path("data/prepare") / f"{split}.jsonl") for split in SPLITS}
    make = task.pool_maker(params, examples["train"])
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

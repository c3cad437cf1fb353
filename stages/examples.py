"""Turn the rows of data/audit into examples with prompts and targets, in data/examples.

python stages/examples.py
"""

from pathlib import Path

from posttrain.core.files import JsonLines, atomic_directory, write_json, write_jsonl
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.rendering import rendered

OUTPUT = Path("data/examples")


def main(params: Params) -> None:
    task, variants = get_task(params.selected_dataset.task), params.generator.sample.variants
    metrics = {}
    with atomic_directory(OUTPUT) as directory:
        for split in SPLITS:
            examples = JsonLines(directory / f"{split}.jsonl")
            rows = task.examples(params, split, Path("data/audit"))
            write_jsonl(examples.path, rendered(task, rows, variants, params.reward.tolerance))
            metrics[split] = {"examples": sum(1 for _ in examples), **task.measure(examples)}
    write_json("metrics/examples.json", metrics)


if __name__ == "__main__":
    run(main)

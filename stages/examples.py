"""Turn the rows of data/audit into examples with prompts and targets, in data/examples, and check that they fit the model.

python stages/examples.py

Of a split that is larger than `datasets.NAME.SPLIT`, as many are sampled; metrics/examples.json says `of` how many. It
also has what the task measures, and its `baselines`: accuracies of answers that need no model.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from posttrain.core.files import JsonLines, atomic_directory, write_json, write_jsonl
from posttrain.core.params import Params, StoredDataset
from posttrain.core.stage import run
from posttrain.models.load import load_tokenizer, place
from posttrain.models.tokens import check_fit
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.rendering import rendered
from posttrain.tasks.subset import subset

OUTPUT = Path("data/examples")


def main(params: Params) -> None:
    dataset, variants = params.selected_dataset, params.generator.sample.variants
    task, entry = get_task(*params.tasks), params.selected_model
    tokenizer = load_tokenizer(*place(entry), prompt=entry.prompt)
    metrics: dict[str, dict[str, Any]] = {}
    with atomic_directory(OUTPUT) as directory:
        for split in SPLITS:
            examples = JsonLines(directory / f"{split}.jsonl")
            rows: Iterable[dict[str, Any]] = task.examples(params, split, Path("data/audit"))
            rows = rendered(task, rows, variants, params.reward.tolerance)
            limit: int | None = getattr(dataset, split)
            cut = {}
            if limit is not None and isinstance(dataset, StoredDataset):
                part = subset(rows, limit, dataset.seed)
                rows, cut = part.rows, {"of": part.of} if part.of > limit else {}
            write_jsonl(examples.path, rows)
            texts = ((row["id"], row["prompts"]["direct"], row["target"]) for row in examples)
            check_fit(split, texts, tokenizer, entry.max_prompt_tokens, entry.max_candidate_tokens)
            metrics[split] = {"examples": sum(1 for _ in examples), **cut, **task.measure(examples)}
            if baselines := task.baselines(examples):
                metrics[split]["baselines"] = baselines
    write_json("metrics/examples.json", metrics)


if __name__ == "__main__":
    run(main)

"""Make the base model, models/base: train the pocket model, or point to a hub or local one.

python stages/base.py
"""

import json
from pathlib import Path

from tqdm import tqdm

from posttrain.checkpoint import CheckpointFile
from posttrain.errors import UserError
from posttrain.files import atomic_directory, atomic_write, read_jsonl, write_json
from posttrain.manifest import build_manifest, digest
from posttrain.models.load import check_lengths, load_config, write_base
from posttrain.models.pocket import (
    Document,
    build_model,
    llama_config,
    pretrain,
    save_pocket,
    train_tokenizer,
)
from posttrain.params import Params
from posttrain.selector.batch import tokenize_answers, tokenize_prompts
from posttrain.stage import run
from posttrain.tasks import get_task

TRAIN = Path("data/prepare/train.jsonl")
OUTPUT = Path("models/base")


def main(params: Params) -> None:
    if params.selected_model.source == "pocket":
        train_pocket(params)
    else:
        point_to_model(params)


def train_pocket(params: Params) -> None:
    task, base = get_task(params.selected_dataset.task), params.base
    entry = params.selected_model
    limit = entry.max_prompt_tokens + entry.max_candidate_tokens
    settings = {**base.model_dump(), "positions": limit}
    manifest = build_manifest("base", settings, [TRAIN], prompt=task.prompt_hash())
    examples = read_jsonl(TRAIN)
    prompts = [task.render_prompt(example) for example in examples]
    answers = [task.render_target(example) for example in examples]

    tokenizer = train_tokenizer([*prompts, *answers], base.vocabulary, limit)
    documents = [
        Document(prompt, answer)
        for prompt, answer in zip(
            tokenize_prompts(prompts, tokenizer), tokenize_answers(answers, tokenizer), strict=True
        )
    ]
    fitting = [document for document in documents if len(document) <= limit]
    if not fitting:
        raise UserError(f"{TRAIN}: no example fits {limit} tokens")

    config = llama_config(
        len(tokenizer), base.hidden_size, base.layers, base.heads, base.intermediate_size, limit
    )
    model = build_model(config, base.seed)
    checkpoint = CheckpointFile(digest(manifest))
    with tqdm(desc="base", unit="step", mininterval=5) as bar:

        def report(step: int, steps: int, row: dict[str, float]) -> None:
            bar.total = steps
            bar.set_postfix(loss=f"{row['loss']:.3f}", tokens=int(row["tokens"]), refresh=False)
            bar.update(step - bar.n)

        curve = pretrain(
            model,
            fitting,
            tokens=base.tokens,
            batch_tokens=base.context * base.batch_size,
            learning_rate=base.learning_rate,
            weight_decay=base.weight_decay,
            seed=base.seed,
            checkpoint=checkpoint,
            report=report,
        )

    with atomic_directory(OUTPUT) as directory:
        save_pocket(directory, model, tokenizer)
        write_base(directory, "pocket", None, None)
        write_json(directory / "manifest.json", manifest)
    last = curve[-max(1, len(curve) // 20) :]
    write_json(
        "metrics/base.json",
        {
            "documents": len(fitting),
            "documents_too_long": len(documents) - len(fitting),
            "loss": sum(row["loss"] for row in last) / len(last),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "steps": len(curve),
            "tokens": int(curve[-1]["tokens"]),
            "vocabulary": len(tokenizer),
        },
    )
    write_curve(curve)
    checkpoint.remove()


def point_to_model(params: Params) -> None:
    entry = params.selected_model
    assert entry.name is not None
    config = load_config(Path(entry.name) if entry.source == "path" else entry.name, entry.revision)
    check_lengths(config, entry.max_prompt_tokens, entry.max_candidate_tokens)
    with atomic_directory(OUTPUT) as directory:
        base = write_base(directory, entry.source, entry.name, entry.revision)
        write_json(directory / "manifest.json", build_manifest("base", base, []))
    write_json("metrics/base.json", {})
    write_curve([])


def write_curve(curve: list[dict[str, float]]) -> None:
    """The loss curve for `dvc plots`, empty when nothing was trained."""
    with atomic_write("plots/base.json") as file:
        json.dump(curve, file, indent=1)


if __name__ == "__main__":
    run(main)

"""Fine-tune the generator on the gold answers of the training questions.

python stages/sft_generator.py SEED
"""

from pathlib import Path

import torch

from posttrain.core.curves import Progress
from posttrain.core.manifest import build_manifest, digest
from posttrain.core.params import Params
from posttrain.core.stage import read_seed, run
from posttrain.core.training import device
from posttrain.generator.data import prompt_completion_rows
from posttrain.generator.methods import sft
from posttrain.generator.run import (
    BASE,
    EXAMPLES,
    Answers,
    forget,
    read_examples,
    save,
    scratch,
    validation,
)
from posttrain.models.architecture import recompute_activations
from posttrain.rollouts.writer import new_generator


def main(params: Params, seed_text: str) -> None:
    seed, config, model = read_seed(seed_text), params.sft.generator, params.selected_model
    answers = Answers(params)
    manifest = build_manifest(
        "sft_generator",
        params.sections("sft.generator", "model", "generation", "rewards"),
        [BASE, EXAMPLES / "train.jsonl", EXAMPLES / "val.jsonl"],
        seed=seed,
        prompt=answers.task.prompt_hash(),
    )
    rows, dropped = prompt_completion_rows(
        read_examples("train"),
        answers.task,
        answers.tokenizer,
        model.max_prompt_tokens,
        model.max_candidate_tokens,
    )
    print(f"{len(rows)} training questions, {len(dropped)} dropped as too long for {params.model}")
    evaluate, examples = validation(answers, config.evaluation_questions)
    torch.manual_seed(seed)
    generator = new_generator(BASE, model.dtype, model.lora, device(), model.quantization)
    if model.gradient_checkpointing:
        recompute_activations(generator)
    work = scratch(digest(manifest))
    history = sft.train(
        generator,
        answers.tokenizer,
        rows,
        config,
        batch_size=model.batch_size,
        accumulation=model.accumulation,
        seed=seed,
        work=work,
        evaluate=evaluate,
        report=Progress(f"sft_generator {seed}"),
    )
    save(
        answers,
        generator,
        history,
        examples,
        best_by=sft.BEST_BY,
        output=Path("models/sft_generator") / str(seed),
        curves=Path("plots/sft_generator") / str(seed),
        manifest=manifest,
    )
    forget(work)


if __name__ == "__main__":
    run(main, shared=True)

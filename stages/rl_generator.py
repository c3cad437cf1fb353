"""Train the generator by one RL method, from the SFT generator of the same seed.

python stages/rl_generator.py METHOD SEED        METHOD: ppo | grpo | rloo | dpo
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch

from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.curves import Progress
from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.manifest import build_manifest, digest
from posttrain.core.params import GENERATOR_METHODS, GeneratorRL, OnPolicy, Params
from posttrain.core.stage import read_seed, run
from posttrain.core.training import History
from posttrain.generator.data import PairText, mixed_questions, pair_rows, prompt_rows
from posttrain.generator.methods import dpo, grpo, ppo, rloo
from posttrain.generator.run import (
    BASE,
    EXAMPLES,
    Answers,
    forget,
    load_policy,
    model_directory,
    read_examples,
    save,
    scratch,
    validation,
)
from posttrain.models.architecture import recompute_activations
from posttrain.rollouts.rewards import RewardFunction
from posttrain.tasks import Example


def main(params: Params, method: str, seed_text: str) -> None:
    if method not in GENERATOR_METHODS:
        raise UserError(f"method {method!r}: expected one of {', '.join(GENERATOR_METHODS)}")
    seed, model = read_seed(seed_text), params.selected_model
    config = params.rl.generator.of(method)
    pairs, drawn = Path("data/preferences") / str(seed), Path("data/sample") / str(seed)
    answers = Answers(params)
    manifest = build_manifest(
        "rl_generator",
        params.sections(f"rl.generator.{method}", "model", "generation", "rewards"),
        [
            BASE,
            model_directory("sft", seed),
            EXAMPLES / "train.jsonl",
            EXAMPLES / "val.jsonl",
            *([pairs] if method == "dpo" else []),
            *([drawn] if asks_mixed(config) else []),
        ],
        method=method,
        seed=seed,
        prompt=answers.task.prompt_hash(),
    )
    generator = load_policy(params, "sft", seed, trainable=True)
    if model.gradient_checkpointing:
        recompute_activations(generator)
    evaluate, shown = validation(answers, config.evaluation_questions)
    work = scratch(digest(manifest))
    name = f"{method}-{seed}"
    torch.manual_seed(seed)
    common: dict[str, Any] = {"seed": seed, "evaluate": evaluate}
    report = Progress(f"rl_generator {name}")
    meta: dict[str, float] = {}
    examples = read_examples("train")
    rewards = RewardFunction(
        answers.task, examples, params.rewards.tolerance, params.rewards.weights.model_dump()
    )
    batch_size = model.batch_size * model.accumulation
    drawing: dict[str, Any] = {"sample": answers.sample, "batch_size": batch_size}
    rows, dropped = prompt_rows(examples, answers.task, answers.tokenizer, model.max_prompt_tokens)
    print(f"{len(rows)} training questions, {len(dropped)} dropped as too long for {params.model}")
    if asks_mixed(config):
        mixed = mixed_questions(read_jsonl(drawn / "samples.jsonl"), config.prompts_per_step)
        rows = [row for row in rows if examples[row["example"]]["id"] in mixed]
        print(f"{len(rows)} of them have right and wrong samples and are asked")
    if method == "dpo":
        training, held_out = (
            read_pairs(pairs / f"{part}.jsonl", examples, answers, model.max_prompt_tokens)
            for part in ("train", "held_out")
        )
        history, meta = dpo.train(
            generator,
            answers.tokenizer,
            training,
            held_out,
            params.rl.generator.dpo,
            batch_size=batch_size,
            work=work,
            report=report,
            **common,
        )
    elif method == "ppo":
        places = [row["example"] for row in rows]
        checkpoint = CheckpointFile("ppo", work)

        def show(done: int, total: int, so_far: History) -> None:
            last = so_far.train[-1] if so_far.train else {}
            told = {key: last[key] for key in ("reward", "kl") if key in last}
            report(done, total, told | {"val": so_far.val[-1]["reward"]})

        history = ppo.train(
            generator,
            answers.tokenizer,
            answers.prompts([examples[place] for place in places]),
            lambda texts, prompts: rewards.rewards(texts, [places[i] for i in prompts]),
            params.rl.generator.ppo,
            max_new_tokens=answers.max_new_tokens,
            generation_batch_size=params.generation.batch_size,
            checkpoint=checkpoint,
            report=show,
            **drawing,
            **common,
        )
    else:
        methods: dict[str, Any] = {"grpo": grpo.train, "rloo": rloo.train}
        history = methods[method](
            generator,
            answers.tokenizer,
            rows,
            rewards,
            config,
            max_completion_tokens=answers.max_new_tokens,
            in_flight=params.generation.batch_size,
            work=work,
            report=report,
            **drawing,
            **common,
        )
    save(
        answers,
        generator,
        history,
        shown,
        best_by="reward",
        output=model_directory(method, seed),
        curves=Path("plots/rl_generator") / name,
        manifest=manifest,
        meta=meta,
    )
    forget(work)


def asks_mixed(config: GeneratorRL) -> TypeGuard[OnPolicy]:
    """Whether only the questions with right and wrong samples are asked."""
    return isinstance(config, OnPolicy) and config.prompts == "mixed"


def read_pairs(
    path: Path, examples: Sequence[Example], answers: Answers, max_prompt_tokens: int
) -> list[dict[str, Any]]:
    """Preference pairs as rows for DPO, each with the prompt that its answers were drawn from."""
    by_id = {example["id"]: example for example in examples}
    texts = [
        PairText(
            pair["id"],
            answers.task.render_prompt(by_id[pair["id"]], pair["variant"]),
            pair["chosen"],
            pair["rejected"],
        )
        for pair in read_jsonl(path)
    ]
    # Sampled texts may tokenise to more than was drawn, and an unfinished one gets its end here.
    limit = 2 * answers.max_new_tokens
    rows, dropped = pair_rows(texts, answers.tokenizer, max_prompt_tokens, limit)
    print(f"{path}: {len(rows)} pairs, {len(dropped)} dropped as too long")
    return rows


if __name__ == "__main__":
    run(main, shared=True)

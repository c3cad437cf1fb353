"""Training runs of the selector (load, train, save, write curves), and scores of a trained one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from posttrain.core import processes
from posttrain.core.checkpoint import forget, work_folder
from posttrain.core.curves import Progress, write_curves
from posttrain.core.files import atomic_directory, read_jsonl
from posttrain.core.loop import VALIDATION, choose, choose_kernels, device
from posttrain.core.manifest import build_manifest, digest, write_model_manifest
from posttrain.core.not_trained import why_not_trained, write_not_trained
from posttrain.core.params import FINE_TUNED, UNTRAINED, Model, Params
from posttrain.core.settings import Optimization
from posttrain.models.architecture import recompute_activations
from posttrain.models.load import BASE, load_tokenizer, read_base
from posttrain.models.precision import compute_in
from posttrain.rollouts.groups import all_equal
from posttrain.selector.batch import PoolText, tokenize_pools
from posttrain.selector.data import make_pools
from posttrain.selector.model import Selector, load_selector, save_selector
from posttrain.selector.predict import score_pools
from posttrain.selector.train import Method, Pools, Run, Schedule, train, validate

POOLS = Path("data/pools")
CURVES = Path("plots/curves/selector")


def model_directory(policy: str, seed: int) -> Path:
    """The folder of a policy's selector."""
    return Path("models/selector") / policy / str(seed)


def load_policy(policy: str, seed: int, model: Model, trainable: bool = False) -> Selector:
    """The selector of a policy. The untrained one chooses by the language model alone."""
    torch.manual_seed(seed)
    selector, _ = load_selector(
        model_directory(policy, seed),
        BASE,
        model.dtype,
        device(),
        trainable,
        model.quantization,
        lora=model.lora if trainable else None,
    )
    compute_in(selector.language_model, model)
    return selector


def by_likelihood(model: torch.nn.Module) -> Selector:
    """A selector whose scores are the language model's log-likelihoods of the candidates."""
    selector = Selector(model).eval()
    torch.nn.init.ones_(selector.likelihood_weight)
    return selector


def score_rows(
    selector: Selector, rows: Sequence[Mapping[str, Any]], model: Model
) -> list[list[float]]:
    """The selector's logits of each row's candidates; rows may differ in K.

    A sampled text may tokenise to more tokens than were sampled. Of one with more than twice `max_candidate_tokens`, such
    as a text of broken characters, or for which the model has no positions, the beginning is scored. `UserError` if a
    prompt is too long.
    """
    tokenizer, longest = load_tokenizer(BASE), model.max_candidate_tokens
    scores: dict[int, list[float]] = {}
    for size in sorted({len(row["candidates"]) for row in rows}):
        chosen = [i for i, row in enumerate(rows) if len(row["candidates"]) == size]
        texts = [
            PoolText(row["id"], row["prompt"], [made["text"] for made in row["candidates"]])
            for row in map(rows.__getitem__, chosen)
        ]
        whole, _ = tokenize_pools(texts, tokenizer, model.max_prompt_tokens, sys.maxsize)
        pools = []
        for pool in whole:
            room = model.max_prompt_tokens + longest - len(pool.prompt_ids)  # fits the positions
            cut = [ids[: min(2 * longest, room)] for ids in pool.candidate_ids]
            pools.append(replace(pool, candidate_ids=cut))
        logits, _ = score_pools(selector, pools, model.batch_size, device())
        scores |= dict(zip(chosen, logits.tolist(), strict=True))
    return [scores[i] for i in range(len(rows))]


def load_data(model: Model, evaluation_questions: int) -> tuple[Pools, Pools, list[str]]:
    """Training pools, validation pools, and the ids of training examples dropped as too long."""
    tokenizer = load_tokenizer(BASE)
    data, dropped = make_pools(read_jsonl(POOLS / "train.jsonl"), tokenizer, model, training=True)
    rows = choose(read_jsonl(POOLS / "val.jsonl"), evaluation_questions, VALIDATION)
    val, _ = make_pools(rows, tokenizer, model, training=False)
    return data, val, dropped


def train_and_save(
    params: Params,
    policy: str,
    seed: int,
    method: Method,
    settings: Optimization,
    prepare: Callable[[Pools, Model], tuple[Selector, Pools, Schedule]],
) -> None:
    """Train the selector of a policy, and write it with its manifest and curves.

    Where there are no pools, or all rewards in a pool are equal, in every pool, and RL has nothing to learn from, the
    reason is written in the place of both.

    prepare: from the training pools, returns the selector to train, the pools with their reference policy, and the
    schedule.
    """
    model = params.selected_model
    start = model_directory(UNTRAINED if policy == FINE_TUNED else FINE_TUNED, seed)
    stage = "selector_sft" if policy == FINE_TUNED else f"selector_rl/{policy}"
    manifest = build_manifest(
        stage,
        params.sections("selector.common", f"selector.{policy}", "model"),
        [BASE, start, POOLS / "train.jsonl", POOLS / "val.jsonl"],
        policy=policy,
        seed=seed,
    )
    if (reason := why_not_trained(POOLS)) is not None:
        _leave_out(policy, seed, reason, manifest)
        return
    data, val, dropped = load_data(model, settings.evaluation_questions)
    print(f"{len(data)} training questions, {len(dropped)} dropped as too long for {params.model}")
    if policy != FINE_TUNED and bool(all_equal(data.rewards).all()):
        reason = f"in each of the {len(data)} training pools all candidates have the same reward"
        _leave_out(policy, seed, reason, manifest)
        return
    choose_kernels(model.deterministic)
    selector, data, schedule = prepare(data, model)
    if model.gradient_checkpointing:
        recompute_activations(selector.backbone)
    work = work_folder(digest(manifest))
    progress = Progress(f"selector/{policy}/{seed}", params.tracking)
    run = Run(
        model=selector,
        seed=seed,
        work=work,
        evaluate=lambda trained: validate(trained, val, model.batch_size),
        report=progress,
        data=data,
        batch_size=model.batch_size,
    )
    history = train(run, method, settings, schedule)
    progress.close()
    if not processes.is_main():
        return
    meta = {"best_step": history.best["step"], "val_reward": history.best["reward"]}
    with atomic_directory(model_directory(policy, seed)) as temporary:
        save_selector(temporary, selector, read_base(BASE), meta)
        write_model_manifest(temporary, manifest)
    write_curves(CURVES / policy / str(seed), history)
    forget(work)


def _leave_out(policy: str, seed: int, reason: str, manifest: Mapping[str, Any]) -> None:
    """Write the reason in the place of the model and its curves."""
    if processes.is_main():
        print(f"selector/{policy}/{seed} is not trained: {reason}")
        write_not_trained(model_directory(policy, seed), reason, manifest)
        write_not_trained(CURVES / policy / str(seed), reason)

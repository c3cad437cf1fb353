"""What both training stages of the selector do around the loop: load, train, save, write curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile, claim, release
from posttrain.core.curves import Progress, write_curves
from posttrain.core.files import atomic_directory, read_jsonl
from posttrain.core.manifest import digest, write_manifest
from posttrain.core.params import Model, Optimization
from posttrain.core.training import VALIDATION, History, choose, device
from posttrain.models.architecture import recompute_activations
from posttrain.models.load import load_tokenizer, read_base
from posttrain.selector.data import make_pools
from posttrain.selector.model import Selector, load_reader, load_selector, save_selector
from posttrain.selector.predict import score_pools
from posttrain.selector.train import Algorithm, Pools, Schedule, train

BASE = Path("models/base")
REWARDS = Path("data/rewards")


def model_directory(policy: str, seed: int) -> Path:
    """Where the training stages put the selector."""
    if policy == "sft":
        return Path("models/sft_selector") / str(seed)
    return Path("models/rl_selector") / f"{policy}-{seed}"


def load_policy(policy: str, seed: int, model: Model, trainable: bool = False) -> Selector:
    """The policy's selector; base is one that saw no training, which chooses by the language model alone."""
    if policy == "base":
        torch.manual_seed(seed)
        return Selector(load_reader(BASE, model.dtype, model.quantization)).to(device()).eval()
    selector, _ = load_selector(
        model_directory(policy, seed), BASE, model.dtype, device(), trainable, model.quantization
    )
    return selector


def by_likelihood(model: torch.nn.Module) -> Selector:
    """A selector whose scores are the language model's log-likelihoods of the candidates."""
    selector = Selector(model).eval()
    torch.nn.init.ones_(selector.likelihood_weight)
    return selector


def score_rows(
    selector: Selector, rows: Sequence[Mapping[str, Any]], model: Model
) -> list[list[float]]:
    """The selector's logits of the candidates of each row, whose pools may differ in size."""
    tokenizer = load_tokenizer(BASE)
    # A drawn text may tokenise to more tokens than were drawn.
    roomy = model.model_copy(update={"max_candidate_tokens": 2 * model.max_candidate_tokens})
    scores: dict[int, list[float]] = {}
    for size in sorted({len(row["candidates"]) for row in rows}):
        chosen = [i for i, row in enumerate(rows) if len(row["candidates"]) == size]
        data, _ = make_pools([rows[i] for i in chosen], tokenizer, roomy, training=False)
        logits, _ = score_pools(selector, data.pools, model.batch_size, device())
        scores |= dict(zip(chosen, logits.tolist(), strict=True))
    return [scores[i] for i in range(len(rows))]


def load_data(model: Model, evaluation_questions: int) -> tuple[Pools, Pools, list[str]]:
    """Training pools, those of the validation questions, and the ids of training examples that are too long."""
    tokenizer = load_tokenizer(BASE)
    data, dropped = make_pools(read_jsonl(REWARDS / "train.jsonl"), tokenizer, model, training=True)
    rows = choose(read_jsonl(REWARDS / "val.jsonl"), evaluation_questions, VALIDATION)
    val, _ = make_pools(rows, tokenizer, model, training=False)
    return data, val, dropped


def train_and_save(
    name: str,
    selector: Selector,
    algorithm: Algorithm,
    config: Optimization,
    schedule: Schedule,
    data: Pools,
    val: Pools,
    *,
    model: Model,
    seed: int,
    manifest: Mapping[str, Any],
    output: Path,
    curves: Path,
) -> None:
    """Train, then put the model in `output`, with its manifest, and its curves in `curves`."""
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    if model.gradient_checkpointing:
        recompute_activations(selector.backbone)
    run = digest(manifest)
    claim(run)
    checkpoint = CheckpointFile(run)
    progress = Progress(name)

    def report(done: int, total: int, history: History) -> None:
        shown = {key: history.train[-1][key] for key in ("loss", "reward")} if history.train else {}
        progress(done, total, {**shown, "val": history.val[-1]["reward"]})

    history = train(
        selector,
        algorithm,
        config,
        schedule,
        data,
        val,
        batch_size=model.batch_size,
        seed=seed,
        checkpoint=checkpoint,
        report=report,
    )
    progress.close()
    if not processes.is_main():
        return
    best = max(history.val[1:], key=lambda row: (row["reward"], row["step"]))
    meta = {"best_step": best["step"], "val_reward": best["reward"]}
    with atomic_directory(output) as temporary:
        save_selector(temporary, selector, read_base(BASE), meta)
        write_manifest(temporary, manifest)
    write_curves(curves, {"train": history.train, "val": history.val})
    checkpoint.remove()
    release(run)

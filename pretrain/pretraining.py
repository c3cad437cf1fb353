"""The pretraining loop of the small base model, on documents of `pages.py`.

    curve = pretrain(model, draw, tokens=20_000_000, ...)

Muon (Jordan et al. 2024; `torch.optim.Muon`) for the matrices, AdamW for embeddings and norms; linear warm-up, then a
cosine to a tenth; gradients clipped at norm 1. The result depends only on the arguments: the batches of a step follow from
the seed, so a killed run resumes from its last checkpoint and ends with the same weights.

Left out: several processes.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pretrain.pages import PageTokens, collate, page_losses
from transformers import PreTrainedModel

from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import UserError

logger = logging.getLogger(__name__)

WARMUP = 0.01
WINDOW = 96  # documents that are sorted by length together and cut into batches


def window_batches(
    documents: Sequence[PageTokens], batch_tokens: int, seed: str
) -> list[list[PageTokens]]:
    """Batches of documents of similar length, at most `batch_tokens` tokens with padding, in random order."""
    batches: list[list[PageTokens]] = [[]]
    for document in sorted(documents, key=len):
        if batches[-1] and (len(batches[-1]) + 1) * len(document) > batch_tokens:
            batches.append([])
        batches[-1].append(document)
    random.Random(seed).shuffle(batches)
    return batches


def learning_rate_at(progress: float) -> float:
    """Fraction of the peak learning rate: linear warm-up over the first 1 %, then a cosine to a tenth.

    progress: in [0, 1].
    """
    if progress < WARMUP:
        return 0.02 + 0.98 * progress / WARMUP
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (progress - WARMUP) / (1 - WARMUP)))


def pretrain(
    model: PreTrainedModel,
    draw: Callable[[int, float], PageTokens | None],
    *,
    tokens: int,
    batch_tokens: int,
    muon_learning_rate: float,
    adam_learning_rate: float,
    weight_decay: float,
    seed: int,
    bfloat16: bool = False,
    checkpoint: CheckpointFile | None = None,
    checkpoint_every: int = 500,
    report: Callable[[dict[str, float]], None] | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place on about `tokens` tokens; return number, tokens, losses and learning rate of each step.

    draw: `draw(index, progress)` makes document number `index` at a progress in [0, 1], or None to skip it. report: called
    after every step. checkpoint: the run starts from its state, if it has one, and saves there every `checkpoint_every`
    steps; the caller removes it at the end.
    """
    if bfloat16:
        model.set_attn_implementation("float32_sdpa")
    optimizers = _optimizers(model, muon_learning_rate, adam_learning_rate, weight_decay)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    window, done, curve = _resume(checkpoint, model, optimizers)
    seen = int(curve[-1]["tokens"]) if curve else 0
    started = int(curve[-1 - done]["tokens"]) if len(curve) > done else 0
    model.train()
    while seen < tokens:
        batches = window_batches(
            _window(draw, window, started / tokens), batch_tokens, f"{seed}/{window}"
        )
        for batch in batches[done:]:
            rate = learning_rate_at(min(1.0, seen / tokens))
            groups = [group for optimizer in optimizers for group in optimizer.param_groups]
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = rate * peak
            losses = page_losses(model, collate(batch), bfloat16)
            losses.total().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            seen += sum(map(len, batch))
            done += 1
            row = {
                "step": len(curve) + 1,
                "tokens": seen,
                "loss": losses.answers.item(),
                "lines": losses.lines.item(),
                "early": losses.early.item(),
                "rate": rate,
            }
            curve.append(row)
            if not math.isfinite(row["loss"]):
                raise UserError(
                    f"pretraining diverged at step {len(curve)}; lower the learning rate"
                )
            if checkpoint is not None and len(curve) % checkpoint_every == 0:
                state = {"window": window, "done": done, "curve": curve}
                checkpoint.save(_tensors(model, optimizers), state)
            if report is not None:
                report(row)
        window, done, started = window + 1, 0, seen
    model.set_attn_implementation("sdpa")
    model.eval()
    return curve


def _window(
    draw: Callable[[int, float], PageTokens | None], window: int, progress: float
) -> list[PageTokens]:
    drawn = (draw(index, progress) for index in range(window * WINDOW, (window + 1) * WINDOW))
    return [document for document in drawn if document is not None]


def _optimizers(
    model: PreTrainedModel, muon: float, adam: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            matrices, lr=muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def _states(
    model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, torch.nn.Parameter, dict[str, torch.Tensor]]]:
    """Each parameter with its name and its optimizer's state."""
    held = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        yield name, parameter, held[parameter].state[parameter]


def _tensors(
    model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, torch.Tensor]:
    """Weights and optimizer states by name, with tied weights once."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter, state in _states(model, optimizers):
        tensors[f"model.{name}"] = parameter
        for key, value in state.items():
            tensors[f"optimizer.{key}.{name}"] = value
    return tensors


def _resume(
    checkpoint: CheckpointFile | None,
    model: PreTrainedModel,
    optimizers: Sequence[torch.optim.Optimizer],
) -> tuple[int, int, list[dict[str, Any]]]:
    """Load a checkpoint if there is one; return the window, its number of finished batches, and the curve so far."""
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return 0, 0, []
    with torch.no_grad():
        for name, parameter, state in _states(model, optimizers):
            parameter.copy_(saved.tensors[f"model.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer"):
                tensor = saved.tensors.get(f"optimizer.{key}.{name}")
                if tensor is not None:
                    state[key] = tensor if key == "step" else tensor.to(parameter.device)
    logger.info("resuming at step %d", len(saved.state["curve"]))
    return int(saved.state["window"]), int(saved.state["done"]), list(saved.state["curve"])

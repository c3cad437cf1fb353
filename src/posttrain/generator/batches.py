"""Batches of rows of episodes, and the model's output before each of their actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.generator import shared
from posttrain.models.tokens import length_buckets, pad
from posttrain.rollouts.episode import Row
from posttrain.rollouts.writer import Generator


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B rows padded on the right; `tokens` holds their n actions, one row after the other."""

    ids: Tensor  # (B, L) int64
    before_action: Tensor  # (B, L) bool, True where the next id is an action
    tokens: Tensor  # (n,) int64
    prompt: int  # length of the one prompt that all rows answer; 0 if they answer several


class Forward(NamedTuple):
    """Logits (n, V) and hidden states (n, d) before each of n actions."""

    logits: Tensor
    states: Tensor


def in_batches(model: Generator, rows: Sequence[Row], batch_size: int) -> list[list[Row]]:
    """Batches of at most `batch_size` rows: by prompt where the model can read it once for all, else by length."""
    # Similar lengths waste the fewest tokens on padding, and a batch too long for the memory fails first.
    ordered = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    share = shared.reads_once(model, len(ordered[0].ids))
    groups: dict[Sequence[int], list[Row]] = {}
    for row in ordered:
        groups.setdefault(row.prompt if share else (), []).append(row)
    alone: list[Row] = []
    batches: list[list[Row]] = []
    for prompt, group in groups.items():
        if prompt and len(group) > 1:
            batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
        else:
            alone += group
    return batches + processes.batches(alone, batch_size)


def prompt_batches(
    prompts: Sequence[list[int]], batch_size: int, steps: int, seed: int
) -> list[list[int]]:
    """`steps` full batches of indices of prompts of similar length, from as many epochs as that takes."""
    batch_size = min(batch_size, len(prompts))
    epochs = -(-steps // (len(prompts) // batch_size))
    lengths = [len(prompt) for prompt in prompts]
    batches = [
        batch
        for epoch in range(epochs)
        for batch in length_buckets(lengths, batch_size, seed, epoch)
    ]
    return [batch for batch in batches if len(batch) == batch_size][:steps]


def collate(rows: Sequence[Row], device: torch.device | str = "cpu") -> TokenBatch:
    """Pad rows into one batch. Pads are id 0; no real token attends to them."""
    ids, _ = pad([row.ids for row in rows])
    actions, _ = pad([row.actions for row in rows])
    is_action = actions.bool()
    before_action = is_action.roll(-1, dims=1)
    prompts = {row.prompt for row in rows}
    length = len(prompts.pop()) if len(prompts) == 1 else 0
    return TokenBatch(ids.to(device), before_action.to(device), ids[is_action].to(device), length)


def forward(
    model: Generator, batch: TokenBatch, weights: Mapping[str, Tensor] | None = None
) -> Forward:
    """Run the model, and its head only where the next token is an action.

    weights: tensors used in place of the model's own of the same names. The batch needs no attention mask, as its pads
    are on the right.
    """
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(model).__name__} has no language-model head, so it cannot write")
    several = len(batch.ids) > 1 and batch.prompt > 0
    once = several and shared.reads_once(model, batch.ids.shape[1])
    states: list[Tensor] = []

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        states.append(inputs[0] if once else inputs[0][batch.before_action][None])
        return (states[-1],)

    def call(**arguments: Any) -> Any:
        return functional_call(model, dict(weights or {}), (), arguments)

    # A hook keeps the model's own scale or soft cap of the logits; calling backbone and head apart would skip it.
    handle = head.register_forward_pre_hook(select)
    try:
        if once:
            prompt, completions = batch.ids[0, : batch.prompt], batch.ids[:, batch.prompt :]
            written = batch.before_action[:, batch.prompt - 1 : -1]
            output = shared.read(call, prompt, completions, written, model.dtype)
        else:
            output = call(input_ids=batch.ids, use_cache=False)
    finally:
        handle.remove()
    return Forward(output.logits[0], states[-1][0])


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) of each token: (n, V) and (n,) to (n,) float32."""
    return -cross_entropy(logits.float() / temperature, tokens, reduction="none")

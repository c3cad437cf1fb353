"""Batches of rows of episodes, and the model's output before each of their actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.func import functional_call

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.generator import shared
from posttrain.generator.shared import Group
from posttrain.models import head
from posttrain.models.head import TokenScores
from posttrain.models.tokens import length_buckets, pad
from posttrain.rollouts.episode import Row
from posttrain.rollouts.writer import Generator


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B rows padded on the right; `tokens` holds their n actions, one row after the other."""

    ids: Tensor  # (B, L) int64
    before_action: Tensor  # (B, L) bool, True where the next id is an action
    tokens: Tensor  # (n,) int64
    groups: Sequence[Group]  # of rows that answer the same prompt


def in_batches(model: Generator, rows: Sequence[Row], batch_size: int) -> list[list[Row]]:
    """Batches of at most `batch_size` rows: by prompt where the model can read it once, else by length."""
    # Similar lengths waste the fewest tokens on padding, and a batch too long for the memory fails first.
    ordered = sorted(rows, key=lambda row: len(row.ids), reverse=True)
    if shared.reads_once(model, len(ordered[0].ids)):
        groups: dict[Sequence[int], list[Row]] = {}
        for row in ordered:
            groups.setdefault(row.prompt, []).append(row)
        ordered = [*chain.from_iterable(groups.values())]
    return processes.batches(ordered, batch_size)


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
    # A row of several turns has no prompt, and stands alone, from its first token on.
    prompts = groupby(enumerate(rows), key=lambda place: place[1].prompt or place[0])
    answered = [[row for _, row in group] for _, group in prompts]
    groups = [Group(len(group), 0, len(group[0].prompt) or 1) for group in answered]
    return TokenBatch(ids.to(device), before_action.to(device), ids[is_action].to(device), groups)


def forward(
    model: Generator, batch: TokenBatch, weights: Mapping[str, Tensor] | None = None
) -> TokenScores:
    """Run the model; what it says of the next token before each of the n actions, and its hidden states (n, d) there.

    weights: tensors used in place of the model's own of the same names. The batch needs no attention mask, as its pads
    are on the right.
    """
    if model.get_output_embeddings() is None:
        raise UserError(f"{type(model).__name__} has no language-model head, so it cannot write")
    before = batch.before_action
    arguments: dict[str, Any] = {"input_ids": batch.ids}
    if len(batch.groups) < len(batch.ids) and shared.reads_once(model, batch.ids.shape[1]):
        # No token after the last action is read.
        columns = torch.arange(1, batch.ids.shape[1] + 1, device=before.device)
        trees = shared.grow(batch.ids, batch.groups, (before * columns).amax(dim=1).tolist())
        before = trees.own & before.flatten()[trees.source]
        arguments = trees.inputs(model.dtype)

    def call(**arguments: Any) -> Any:
        return functional_call(model, dict(weights or {}), (), arguments)

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    run = partial(call, use_cache=False, **arguments)
    return head.read(inner, run, lambda states: states[before], call)[1]

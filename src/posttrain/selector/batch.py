"""Candidate pools as token ids, and batches of them.

A pool is one prompt and K candidate answers. They are tokenised separately and joined as ids (`models/tokens.py`), so the
prompt's ids are the same for all candidates, as the shared prefix requires.

Nothing is truncated: if a prompt or candidate exceeds its limit, the whole pool is an error, or is dropped and reported.

Left out: pools of different K in one batch (the `sizes` of `length_buckets` keep them apart).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.models.tokens import pad, tokenize_answers, tokenize_prompts


@dataclass(frozen=True, slots=True)
class PoolText:
    """One question as text: its id, the rendered prompt, and the K candidate answers."""

    id: str
    prompt: str
    candidates: Sequence[str]


@dataclass(frozen=True, slots=True)
class TokenizedPool:
    """One question as token ids: P prompt ids, and K lists of candidate ids."""

    id: str
    prompt_ids: list[int]
    candidate_ids: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all candidates; the shared encoding reads at most as many."""
        return len(self.prompt_ids) + sum(map(len, self.candidate_ids))


@dataclass(frozen=True, slots=True)
class PoolBatch:
    """B pools of K candidates, padded on the right; masks are bool, True for real tokens."""

    prompt_ids: torch.Tensor  # (B, P) int64
    prompt_mask: torch.Tensor  # (B, P)
    candidate_ids: torch.Tensor  # (B, K, C) int64
    candidate_mask: torch.Tensor  # (B, K, C)

    def to(self, device: torch.device | str) -> PoolBatch:
        """The same batch on `device`."""
        return PoolBatch(
            self.prompt_ids.to(device),
            self.prompt_mask.to(device),
            self.candidate_ids.to(device),
            self.candidate_mask.to(device),
        )

    def __len__(self) -> int:
        return self.prompt_ids.shape[0]


def tokenize_pools(
    rows: Sequence[PoolText],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_candidate_tokens: int,
    overlong: Literal["error", "drop"] = "error",
) -> tuple[list[TokenizedPool], list[str]]:
    """Token ids of all pools in order, and the names of pools dropped as too long.

    The limits include special tokens. overlong: "error" raises a `UserError` with the number of pools over a limit and
    the first of them; "drop" leaves them out.
    """
    prompts = tokenize_prompts([row.prompt for row in rows], tokenizer)
    flat = tokenize_answers([text for row in rows for text in row.candidates], tokenizer)
    pools: list[TokenizedPool] = []
    dropped: list[str] = []
    first = ""
    position = 0
    for row, prompt in zip(rows, prompts, strict=True):
        if not row.candidates:
            raise UserError(f"{row.id}: the pool has no candidates")
        candidates = flat[position : position + len(row.candidates)]
        position += len(row.candidates)
        longest = max(map(len, candidates))
        if len(prompt) > max_prompt_tokens or longest > max_candidate_tokens:
            first = first or f"{row.id}: prompt {len(prompt)}, longest candidate {longest} tokens"
            dropped.append(row.id)
        else:
            pools.append(TokenizedPool(row.id, prompt, candidates))
    if dropped and overlong == "error":
        raise UserError(
            f"{len(dropped)} of {len(rows)} pools exceed max_prompt_tokens={max_prompt_tokens} or "
            f"max_candidate_tokens={max_candidate_tokens}, the first is {first}; "
            "raise the limit or, where the task has pages, shorten them (examples.context, examples.top_n)"
        )
    return pools, dropped


def collate(pools: Sequence[TokenizedPool]) -> PoolBatch:
    """Pad pools of equal K into one batch, with masked ids 0."""
    if not pools:
        raise ValueError("collate needs at least one pool")
    k = len(pools[0].candidate_ids)
    for pool in pools:
        if len(pool.candidate_ids) != k:
            raise UserError(
                f"{pool.id}: {len(pool.candidate_ids)} candidates where {pools[0].id} has {k}"
            )
    prompt_ids, prompt_mask = pad([pool.prompt_ids for pool in pools])
    candidate_ids, candidate_mask = pad([ids for pool in pools for ids in pool.candidate_ids])
    shape = (len(pools), k, candidate_ids.shape[1])
    return PoolBatch(prompt_ids, prompt_mask, candidate_ids.view(shape), candidate_mask.view(shape))

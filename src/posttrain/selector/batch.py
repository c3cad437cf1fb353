"""Candidate pools as token ids, and batches of them.

A pool is one prompt and K candidate answers. Prompt and candidate are tokenised apart and joined as
ids:

    prompt ids    = [start specials] + tokens(prompt)
    candidate ids = tokens("\\n" + candidate) + [end special]

so the prompt's ids are the same for all candidates, which the shared prefix needs, and the same for
the selector, the generator and the pretraining text. Start and end specials are what the tokenizer
itself puts around one text (`[CLS] ... [SEP]` for BERT, the BOS of Llama); a tokenizer without an
end special gives EOS.

Nothing is ever truncated: a prompt or candidate over its limit is an error, or the whole pool is
dropped and named. Left out: pools of different K in one batch (`length_buckets` takes `sizes` to
keep them apart).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from posttrain.errors import UserError

SEPARATOR = "\n"
CHUNK = 1024


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
        """Tokens that the shared encoding reads: the prompt once and every candidate."""
        return len(self.prompt_ids) + sum(map(len, self.candidate_ids))


@dataclass(frozen=True, slots=True)
class PoolBatch:
    """B pools of K candidates, padded on the right; masks are bool, True on real tokens."""

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


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids put before a prompt and after a candidate (or a completion)."""

    start: list[int]
    end: list[int]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> Specials:
    """What this tokenizer puts around one text; EOS at the end where it puts nothing there."""
    around: list[int] = list(tokenizer("")["input_ids"])
    start = [i for i in around if i in (tokenizer.bos_token_id, tokenizer.cls_token_id)][:1]
    end = [i for i in around[len(start) :] if i in (tokenizer.eos_token_id, tokenizer.sep_token_id)]
    if not end and tokenizer.eos_token_id is not None:
        end = [int(tokenizer.eos_token_id)]
    return Specials(start, end[:1])


def tokenize_prompts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each prompt, with the start specials."""
    start = special_ids(tokenizer).start
    return [start + ids for ids in _encode(texts, tokenizer)]


def tokenize_answers(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each answer as it follows a prompt: the separator, the text, the end special."""
    end = special_ids(tokenizer).end
    return [ids + end for ids in _encode([SEPARATOR + text for text in texts], tokenizer)]


def tokenize_pools(
    rows: Sequence[PoolText],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_candidate_tokens: int,
    overlong: Literal["error", "drop"] = "error",
) -> tuple[list[TokenizedPool], list[str]]:
    """Token ids of all pools in order, and the ids of the pools dropped for being too long.

    Limits count the special tokens. With `overlong="error"` a pool over a limit is a `UserError`
    that says how many there are and names the first; with "drop" such pools are left out and their
    ids returned.
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
            "raise the limit or shorten the context (prepare.context, prepare.top_n)"
        )
    return pools, dropped


def collate(pools: Sequence[TokenizedPool]) -> PoolBatch:
    """Pad pools of equal K into one batch; pads are id 0 and masked."""
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


def pad(sequences: Sequence[Sequence[int]], value: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids (N, L) int64 and their mask (N, L) bool."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), value, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = True
    return ids, mask


def length_buckets(
    lengths: Sequence[int],
    batch_size: int,
    seed: int,
    epoch: int = 0,
    sizes: Sequence[int] | None = None,
    window: int = 32,
) -> list[list[int]]:
    """One epoch of batches of similar length, each index once, in an order fixed by (seed, epoch).

    Indices are shuffled, cut into windows of `window` batches, sorted by length inside each window
    and cut into batches; then the batches are shuffled. A whole-corpus sort would pad a little less
    and always group the same rows. `sizes` (say, K of each pool) keeps rows of different size in
    different batches. Short batches can occur at the end of each size group.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    generator = random.Random(f"{seed}/{epoch}")
    groups: dict[int, list[int]] = {}
    for index in range(len(lengths)):
        groups.setdefault(sizes[index] if sizes is not None else 0, []).append(index)
    batches: list[list[int]] = []
    for key in sorted(groups):
        indices = groups[key]
        generator.shuffle(indices)
        for chunk in _chunks(indices, window * batch_size):
            chunk.sort(key=lambda index: lengths[index])
            batches.extend(_chunks(chunk, batch_size))
    generator.shuffle(batches)
    return batches


def _chunks(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    ids: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        encoded = tokenizer(
            part, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        ids.extend(encoded["input_ids"])
    return ids

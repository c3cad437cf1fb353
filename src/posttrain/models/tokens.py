"""Text as token ids, the same for selector, generator and pretraining.

A prompt and what follows it (a candidate or a completion) are tokenised apart and joined as ids:

    prompt ids = [start specials] + tokens(prompt)
    answer ids = tokens("\\n" + answer) + [end special]

so the prompt's ids do not depend on its continuation. Start and end specials are what the tokenizer
itself puts around one text (`[CLS] ... [SEP]` for BERT, the BOS of Llama); a tokenizer without an
end special gives EOS. Left out: truncation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n"
CHUNK = 1024


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

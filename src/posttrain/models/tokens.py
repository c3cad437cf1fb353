"""Text as token ids, the same for selector, generator and pretraining.

A prompt and its continuation (a candidate or a completion) are tokenised separately and joined as ids:

    prompt ids = [start specials] + tokens(prompt)
    answer ids = tokens("\\n" + answer) + [end special]

so the prompt's ids do not depend on its continuation. The specials are those that the tokenizer itself puts around a
text (`[CLS] ... [SEP]` of BERT, the BOS of Llama), and EOS at the end if it puts none there.

Left out: truncation.
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
    """Ids before a prompt, and after a candidate or a completion."""

    start: list[int]
    end: list[int]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> Specials:
    """The special tokens that a tokenizer puts around a text, with EOS at the end if it puts none there."""
    around: list[int] = list(tokenizer("")["input_ids"])
    start = [i for i in around if i in (tokenizer.bos_token_id, tokenizer.cls_token_id)][:1]
    end = [i for i in around[len(start) :] if i in (tokenizer.eos_token_id, tokenizer.sep_token_id)]
    if not end and tokenizer.eos_token_id is not None:
        end = [int(tokenizer.eos_token_id)]
    return Specials(start, end[:1])


def tokenize_prompts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each prompt, with start specials."""
    start = special_ids(tokenizer).start
    return [start + ids for ids in _encode(texts, tokenizer)]


def tokenize_answers(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each answer after its prompt: separator, text, end special."""
    end = special_ids(tokenizer).end
    return [ids + end for ids in _encode([SEPARATOR + text for text in texts], tokenizer)]


def pad(sequences: Sequence[Sequence[int]], value: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (N, L) int64, padded on the right, and their mask (N, L) bool."""
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
    """One epoch of batches of similar length: each index once, in an order fixed by (seed, epoch).

    Indices are shuffled, cut into windows of `window` batches, sorted by length inside each window and cut into batches;
    then the batches are shuffled. Sorting the whole corpus would pad a little less, but always group the same rows. Rows
    of different `sizes` (such as the K of a pool) go into different batches. Each size can end with a short batch.
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

"""Text as token ids, the same for selector, generator and pretraining.

A prompt and its continuation (a candidate or a completion) are tokenised separately and joined as ids:

    prompt ids = [start specials] + tokens(prompt)
    answer ids = tokens("\\n" + answer) + [end special]
    observation ids = tokens("\\n" + observation)      between two answers of an episode

so the prompt's ids do not depend on its continuation. The specials are those that the tokenizer itself puts around a
text (`[CLS] ... [SEP]` of BERT, the BOS of Llama), and EOS at the end if it puts none there. Where the model's entry has
`prompt: chat`, both are turns of a conversation instead (`models.chat`).

The names of special tokens in a text (`<eos>`, `[PAD]`) are characters like any other. Those of added tokens that are not
special (`<think>` of Qwen 3) give these tokens, except in a chat.

Left out: truncation.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.models import chat

SEPARATOR = "\n"
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Specials:
    """Ids before a prompt, and after a candidate or a completion."""

    start: list[int]
    end: list[int]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> Specials:
    """The special tokens that a tokenizer puts around a text, with EOS at the end if it puts none there.

    Those of a tokenizer that chats are its BOS, which a prompt has once, and the end of a turn.
    """
    around: list[int] = list(tokenizer("")["input_ids"])
    start = [i for i in around if i in (tokenizer.bos_token_id, tokenizer.cls_token_id)][:1]
    end = [i for i in around[len(start) :] if i in (tokenizer.eos_token_id, tokenizer.sep_token_id)]
    if not end and tokenizer.eos_token_id is not None:
        end = [int(tokenizer.eos_token_id)]
    if (turns := chat.turns(tokenizer)) is not None:
        end = [turns.end]
    return Specials(start, end[:1])


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of the special tokens, which no text gives.

    The one for what the vocabulary lacks is among them only if it has another role, as in GPT-2.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    roles = {
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    }
    return special - ({tokenizer.unk_token_id} - roles)


def tokenize_prompts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each prompt, with start specials, or as the user's turn."""
    if (turns := chat.turns(tokenizer)) is not None:
        return chat.prompt_ids(texts, tokenizer, turns)
    start = special_ids(tokenizer).start
    return [start + ids for ids in _encode(texts, tokenizer)]


def tokenize_answers(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each answer after its prompt: separator, text, end special; or the assistant's turn."""
    turns = chat.turns(tokenizer)
    if turns is None:
        end = special_ids(tokenizer).end
        return [ids + end for ids in _encode([SEPARATOR + text for text in texts], tokenizer)]
    found = chat.answer_ids(texts, tokenizer, turns)
    return [
        [*_encode([turns.before + text + turns.after], tokenizer)[0], turns.end]
        if ids is None
        else ids
        for text, ids in zip(texts, found, strict=True)
    ]


def tokenize_observations(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Ids of each observation after an answer: separator and text; or the user's next turn."""
    if (turns := chat.turns(tokenizer)) is not None:
        return chat.reply_ids(texts, tokenizer, turns)
    return _encode([SEPARATOR + text for text in texts], tokenizer)


def decode_answer(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of an answer's ids, without its separator and end; empty if there is a special token among them.

    In a chat it is also without the thoughts before it.
    """
    text, before = _decode(ids, tokenizer), SEPARATOR
    if text != _decode(ids, tokenizer, skip_special_tokens=True):
        if not control_ids(tokenizer).isdisjoint(ids):
            return ""
        # What the vocabulary lacks, which may be the separator itself.
        before = _decode(_encode([SEPARATOR], tokenizer)[0], tokenizer)
    turns = chat.turns(tokenizer)
    return text.removeprefix(before) if turns is None else chat.answer_text(text, turns)


def pad(sequences: Sequence[Sequence[int]], value: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids (N, L) int64, padded on the right, and their mask (N, L) bool."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), value, dtype=torch.long)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = True
    return ids, mask


def check_fit(
    split: str,
    rows: Iterable[tuple[str, str, str]],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_answer_tokens: int,
) -> None:
    """`UserError` if a question of a split is longer than the model's entry allows, or all training questions are.

    rows: id, prompt and answer of each. Some long questions of `train` are only told, as training leaves them out.
    """
    count, long, first, longest = 0, 0, "", (0, 0)
    rows = iter(rows)
    while part := [*islice(rows, CHUNK)]:
        ids, prompts, answers = zip(*part, strict=True)
        asked = [len(tokens) for tokens in tokenize_prompts(prompts, tokenizer)]
        told = [len(tokens) for tokens in tokenize_answers(answers, tokenizer)]
        longest = max(longest[0], *asked), max(longest[1], *told)
        sizes = zip(ids, asked, told, strict=True)
        over = [
            size for size in sizes if size[1] > max_prompt_tokens or size[2] > max_answer_tokens
        ]
        if over and not first:
            first = "{}: prompt {}, answer {} tokens".format(*over[0])
        count, long = count + len(part), long + len(over)
    line = (
        f"{long} of {count} {split} questions exceed max_prompt_tokens={max_prompt_tokens} or "
        f"max_candidate_tokens={max_answer_tokens}, the first is {first}, the longest "
        f"{longest[0]} and {longest[1]}"
    )
    if long and (split != "train" or long == count):
        raise UserError(
            f"{line}; raise the limit or, where the task has pages, shorten them (examples.context, examples.top_n)"
        )
    if long:
        print(f"{line}; training leaves them out")


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


def _decode(
    ids: Sequence[int], tokenizer: PreTrainedTokenizerBase, skip_special_tokens: bool = False
) -> str:
    text = tokenizer.decode(
        list(ids),
        skip_special_tokens=skip_special_tokens,
        clean_up_tokenization_spaces=False,
    )
    assert isinstance(text, str)
    return text


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Ids of each text without specials around it."""
    control = control_ids(tokenizer)
    ids: list[list[int]] = []
    for start in range(0, len(texts), CHUNK):
        part = list(texts[start : start + CHUNK])
        encoded = tokenizer(
            part,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        for text, found in zip(part, encoded["input_ids"], strict=True):
            ids.append(found if control.isdisjoint(found) else _apart(text, tokenizer, control))
    return ids


def _apart(text: str, tokenizer: PreTrainedTokenizerBase, control: set[int]) -> list[int]:
    """Ids of a text in which the vocabulary itself has the name of a special token, as in Unigram and WordLevel models.

    The text is cut behind the first character of each name, and its parts are tokenised apart.
    """
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )
    ids: list[int] = encoded["input_ids"]
    places = zip(ids, encoded["offset_mapping"], strict=True)
    found = [place for one, place in places if one in control]
    if not found:
        return ids
    for start, end in found:
        if end - start < 2:
            raise UserError(f"the tokenizer reads {text[start:end]!r} as a special token")
    cuts = [0, *(start + 1 for start, _ in found), len(text)]
    return [i for a, b in pairwise(cuts) for i in _apart(text[a:b], tokenizer, control)]

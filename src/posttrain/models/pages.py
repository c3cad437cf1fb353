"""Pages with exercises as batches of a small model: tokens, packing, the loss on the answers.

A document is a page and many exercises on it. The page is read once, causally, without loss; the exercises follow
packed in rows, each seeing the page and itself only, with positions that continue from the page: what the model
meets later, a page and one question. The loss is the mean over the answers' tokens of w * -log p(token), with
w = 1 where the page decides the token and `EXTRA_WEIGHT` in copied or computed numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.masking_utils import sdpa_mask

EXTRA_WEIGHT = 0.1
ROW = 160  # tokens of a row of exercises: attention is dense within a row


@dataclass(frozen=True, slots=True)
class PageTokens:
    """Token ids of a page (with BOS), and of each exercise: what is asked, the answer, the answer's weights."""

    page: list[int]
    asked: list[list[int]]
    answers: list[list[int]]
    weights: list[list[float]]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each exercise."""
        return [
            len(asked) + len(answer) for asked, answer in zip(self.asked, self.answers, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.page) + sum(self.lengths)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    page: str,
    exercises: Sequence[tuple[str, str, int, str]],
) -> PageTokens:
    """Token ids of a page and of its exercises: asked, answer, certain characters of the answer, context.

    An answer ends with EOS, except one that has a context: it is a word inside a text, tokenised as behind it.
    """

    def ids(texts: Sequence[str]) -> list[list[int]]:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)
        return list(encoded["input_ids"])

    asked = ids([page, *(exercise[0] for exercise in exercises)])
    certain = ids([context + answer[:sure] for _, answer, sure, context in exercises])
    whole = ids([context + answer for _, answer, _, context in exercises])
    contexts = ids([context for *_, context in exercises])
    answers, weights = [], []
    for exercise, sure, full, before in zip(exercises, certain, whole, contexts, strict=True):
        ends = [] if exercise[3] else [tokenizer.eos_token_id]
        answer = full[len(before) :] + ends
        decided = len(sure) - len(before)
        answers.append(answer)
        weights.append([1.0] * decided + [EXTRA_WEIGHT] * (len(answer) - decided))
    start = [tokenizer.bos_token_id]
    return PageTokens([*start, *asked[0]], asked[1:], answers, weights)


@dataclass(frozen=True, slots=True)
class PageBatch:
    """B documents: pages (B, P) and R rows of exercises (R, S), the page of each row (R,), what they may see
    (R, 1, S, P + S), positions (R, S); targets, weights and the exercise's index in its document (R, S), at the
    positions that predict an answer's token.
    """

    pages: torch.Tensor
    exercises: torch.Tensor
    page_of: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    owner: torch.Tensor


def collate(documents: Sequence[PageTokens]) -> PageBatch:
    """Pad documents on the right into one batch, the exercises of a page packed in rows of about `ROW` tokens."""
    width = max(len(document.page) for document in documents)
    pages = torch.zeros((len(documents), width), dtype=torch.long)
    real = torch.zeros((len(documents), width), dtype=torch.bool)
    rows: list[tuple[int, list[int]]] = []
    for number, document in enumerate(documents):
        size = len(document.page)
        pages[number, :size] = torch.tensor(document.page)
        real[number, :size] = True
        rows += [(number, row) for row in _rows(document)]
    length = max(sum(documents[number].lengths[i] for i in row) for number, row in rows)
    exercises, targets, positions = (
        torch.zeros((len(rows), length), dtype=torch.long) for _ in range(3)
    )
    owner = torch.full((len(rows), length), -1)
    weights = torch.zeros((len(rows), length))
    for line, (number, row) in enumerate(rows):
        document, start = documents[number], 0
        for index in row:
            asked, answer = document.asked[index], document.answers[index]
            stop = start + len(asked) + len(answer)
            predicts = slice(start + len(asked) - 1, stop - 1)
            exercises[line, start:stop] = torch.tensor(asked + answer)
            owner[line, start:stop] = index
            positions[line, start:stop] = len(document.page) + torch.arange(stop - start)
            targets[line, predicts] = torch.tensor(answer)
            weights[line, predicts] = torch.tensor(document.weights[index])
            start = stop
    page_of = torch.tensor([number for number, _ in rows])
    same = owner[:, :, None] == owner[:, None, :]
    own = same & (positions[:, :, None] >= positions[:, None, :])
    allowed = torch.cat([real[page_of, None].expand(-1, length, -1), own], dim=-1)[:, None]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return PageBatch(pages, exercises, page_of, mask, positions, targets, weights, owner)


def _rows(document: PageTokens) -> list[list[int]]:
    """Exercises in rows of at most `ROW` tokens (or one longer exercise), the longest first, first fit."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(document.asked)), key=lambda index: -document.lengths[index]):
        size = document.lengths[index]
        fits = next((row for row, left in enumerate(room) if left >= size), None)
        if fits is None:
            rows.append([index])
            room.append(ROW - size)
        else:
            rows[fits].append(index)
            room[fits] -= size
    return rows


def _float32_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in float32 inside a bfloat16 autocast: on a CPU its backward pass is twice as fast so."""
    with torch.autocast(query.device.type, enabled=False):
        output = F.scaled_dot_product_attention(
            query.float(),
            key.float(),
            value.float(),
            attn_mask=attention_mask,
            scale=scaling,
            is_causal=attention_mask is None and query.shape[2] > 1,
        )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register("float32_sdpa", _float32_attention)
AttentionMaskInterface.register("float32_sdpa", sdpa_mask)


def answer_logits(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> torch.Tensor:
    """Logits (N, V), float32, at the N positions of the batch that predict a token of an answer."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        page = model.model(input_ids=batch.pages, past_key_values=DynamicCache(), use_cache=True)
        page.past_key_values.batch_select_indices(batch.page_of)
        hidden = model.model(
            input_ids=batch.exercises,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=page.past_key_values,
            use_cache=True,
        ).last_hidden_state
        logits: torch.Tensor = model.lm_head(hidden[batch.weights > 0])
    return logits.float()


def answer_loss(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> torch.Tensor:
    """Weighted mean of -log p over the tokens of the batch's answers."""
    counted = batch.weights > 0
    weights = batch.weights[counted]
    losses = F.cross_entropy(
        answer_logits(model, batch, bfloat16), batch.targets[counted], reduction="none"
    )
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def exact_answers(model: PreTrainedModel, document: PageTokens) -> list[list[bool]]:
    """For each exercise, which of the tokens that the page decides are the model's first choice.

    All of them are if and only if greedy decoding writes that part of the answer.
    """
    batch = collate([document])
    counted = batch.weights > 0
    right = answer_logits(model, batch).argmax(dim=-1) == batch.targets[counted]
    decided, owner = batch.weights[counted] == 1, batch.owner[counted]
    return [right[decided & (owner == index)].tolist() for index in range(len(document.answers))]

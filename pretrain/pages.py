"""Batches of pages with exercises for a small model: tokens, packing, and the losses.

A document is a page and many exercises on it. The page is read once, causally, without loss. The exercises follow, packed
into rows; each attends only to the page and to itself, with positions that continue from the page, so that the model sees
the same as later: a page and one question. The loss is the mean over the answers' tokens of w * -log p(token), with w = 1
where the page determines the token, and `EXTRA_WEIGHT` in copied or computed numbers.

Two auxiliary losses of weight `EARLY_WEIGHT` set in which layers something must be known (deep supervision, Lee et al.,
AISTATS 2015); both use the output layer. After half of the layers, each token in a numbered line, or after a name like
"[T1", must predict that number. After three quarters, the words of a tag must predict its answer. With these losses, 94 %
of the row tags of 12x4 tables are correct after three million tokens, all rows alike; without them 56 % after 36 million,
because each row number is then learned by itself, and late.
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
EARLY_WEIGHT = 0.3
ROW = 160  # tokens of a row of exercises; kept short, because attention is dense within a row


@dataclass(frozen=True, slots=True)
class PageTokens:
    """A page and its exercises as token ids.

    page: with BOS. lines: for each token of the page, the number of its line or phrase (a token id, or -1). asked, answers,
    weights, early: for each exercise, its prompt, its answer, the weights of the answer's tokens, and whether it has the
    early loss.
    """

    page: list[int]
    lines: list[int]
    asked: list[list[int]]
    answers: list[list[int]]
    weights: list[list[float]]
    early: list[bool]

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each exercise."""
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
    """Token ids of a page and its exercises, each (prompt, answer, certain characters of the answer, context).

    Answers end with EOS. An answer with a context does not: it is a word within a text, tokenised as after the context, and
    has the early loss.
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
    read = [tokenizer.bos_token_id, *asked[0]]
    early = [bool(context) for context in contexts]
    return PageTokens(read, _lines(tokenizer, read), asked[1:], answers, weights, early)


def _lines(tokenizer: PreTrainedTokenizerBase, page: list[int]) -> list[int]:
    """For each token, the number that starts its line, or the number in the last name like "[T1" if that is nearer.

    -1 for tokens without a number, and for the numbers themselves.
    """
    words = [token.strip() for token in tokenizer.batch_decode([[token] for token in page])]
    starts = (tokenizer.encode("\n", add_special_tokens=False)[0], tokenizer.bos_token_id)
    lines, number = [], -1
    for index, token in enumerate(page):
        first = index > 0 and page[index - 1] in starts
        named = words[max(0, index - 2) : index] == ["[", "T"]
        if first or named:
            number = token if words[index].isdigit() else -1
        lines.append(-1 if first or named else number)
    return lines


@dataclass(frozen=True, slots=True)
class PageBatch:
    """B documents, whose exercises are packed into R rows.

    pages, lines: (B, P). exercises, positions: (R, S). page_of: the page of each row, (R,). mask: additive attention mask,
    (R, 1, S, P + S). owner: index in its document of the exercise that a token belongs to, (R, S). targets, weights,
    early: (R, S), set at the positions that predict a token of an answer.
    """

    pages: torch.Tensor
    lines: torch.Tensor
    exercises: torch.Tensor
    page_of: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    early: torch.Tensor
    owner: torch.Tensor


def collate(documents: Sequence[PageTokens]) -> PageBatch:
    """Pad documents on the right into one batch, and pack the exercises of a page into rows of about `ROW` tokens."""
    width = max(len(document.page) for document in documents)
    pages = torch.zeros((len(documents), width), dtype=torch.long)
    lines = torch.full((len(documents), width), -1)
    real = torch.zeros((len(documents), width), dtype=torch.bool)
    rows: list[tuple[int, list[int]]] = []
    for number, document in enumerate(documents):
        size = len(document.page)
        pages[number, :size] = torch.tensor(document.page)
        lines[number, :size] = torch.tensor(document.lines)
        real[number, :size] = True
        rows += [(number, row) for row in _rows(document)]
    length = max(sum(documents[number].lengths[i] for i in row) for number, row in rows)
    exercises, targets, positions = (
        torch.zeros((len(rows), length), dtype=torch.long) for _ in range(3)
    )
    owner = torch.full((len(rows), length), -1)
    weights = torch.zeros((len(rows), length))
    early = torch.zeros((len(rows), length), dtype=torch.bool)
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
            early[line, predicts] = document.early[index]
            start = stop
    page_of = torch.tensor([number for number, _ in rows])
    same = owner[:, :, None] == owner[:, None, :]
    own = same & (positions[:, :, None] >= positions[:, None, :])
    allowed = torch.cat([real[page_of, None].expand(-1, length, -1), own], dim=-1)[:, None]
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    return PageBatch(
        pages, lines, exercises, page_of, mask, positions, targets, weights, early, owner
    )


def _rows(document: PageTokens) -> list[list[int]]:
    """Rows of at most `ROW` tokens (or of one longer exercise), by first fit of the longest exercises first."""
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
    """Attention in float32 inside a bfloat16 autocast: its backward pass on a CPU is twice as fast."""
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


@dataclass(frozen=True, slots=True)
class PageLogits:
    """Logits (N, V), float32, where `page_losses` needs them.

    answers: after all layers, at the positions that predict a token of an answer. lines: after half of the layers, at
    tokens whose line starts with a number. early: after three quarters, at the positions with the early loss.
    """

    answers: torch.Tensor
    lines: torch.Tensor
    early: torch.Tensor


def page_logits(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> PageLogits:
    """The model's logits where `batch.weights > 0`, `batch.lines >= 0` and `batch.early`."""
    layers, norm = model.config.num_hidden_layers, model.model.norm
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
        page = model.model(
            input_ids=batch.pages,
            past_key_values=DynamicCache(),
            use_cache=True,
            output_hidden_states=True,
        )
        page.past_key_values.batch_select_indices(batch.page_of)
        asked = model.model(
            input_ids=batch.exercises,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=page.past_key_values,
            use_cache=True,
            output_hidden_states=True,
        )
        answers = model.lm_head(asked.last_hidden_state[batch.weights > 0])
        lines = model.lm_head(norm(page.hidden_states[layers // 2][batch.lines >= 0]))
        early = model.lm_head(norm(asked.hidden_states[3 * layers // 4][batch.early]))
    return PageLogits(answers.float(), lines.float(), early.float())


@dataclass(frozen=True, slots=True)
class PageLosses:
    """The weighted mean of -log p over the answers' tokens, and the means over lines and early answers (0 if none)."""

    answers: torch.Tensor
    lines: torch.Tensor
    early: torch.Tensor

    def total(self) -> torch.Tensor:
        """The loss that training minimises."""
        return self.answers + EARLY_WEIGHT * (self.lines + self.early)


def page_losses(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> PageLosses:
    """The losses of a batch."""
    logits = page_logits(model, batch, bfloat16)
    counted = batch.weights > 0
    weights = batch.weights[counted]
    losses = F.cross_entropy(logits.answers, batch.targets[counted], reduction="none")
    return PageLosses(
        (losses * weights).sum() / weights.sum(),
        _mean_loss(logits.lines, batch.lines[batch.lines >= 0]),
        _mean_loss(logits.early, batch.targets[batch.early]),
    )


def _mean_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))


@torch.no_grad()
def exact_answers(model: PreTrainedModel, document: PageTokens) -> list[list[bool]]:
    """For each exercise, whether each token that the page determines is the model's first choice.

    All of them are if and only if greedy decoding writes that part of the answer.
    """
    batch = collate([document])
    counted = batch.weights > 0
    right = page_logits(model, batch).answers.argmax(dim=-1) == batch.targets[counted]
    decided, owner = batch.weights[counted] == 1, batch.owner[counted]
    return [right[decided & (owner == index)].tolist() for index in range(len(document.answers))]

"""Pages with exercises as batches of a small model: tokens, packing, the loss on the answers.

A document is a page and many exercises on it. The page is read once, causally, without loss; the exercises follow
packed in rows, each seeing the page and itself only, with positions that continue from the page: what the model
meets later, a page and one question. The loss is the mean over the answers' tokens of w * -log p(token), with
w = 1 where the page decides the token and `EXTRA_WEIGHT` in copied or computed numbers.

Two more losses, of weight `EARLY_WEIGHT`, say where in the layers what should be known (deep supervision, Lee et al.,
AISTATS 2015); both are read by the output layer. After half of the layers each token of a numbered line, or behind a name
like "[T1", must tell that number, and after three quarters the words of a tag, asked behind the page, must tell theirs.
With them 94 % of the row tags of 12x4 tables are right after three million tokens, all rows alike; without, 56 % after
36 million: each row number is learned by itself then, and late.
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
ROW = 160  # tokens of a row of exercises: attention is dense within a row


@dataclass(frozen=True, slots=True)
class PageTokens:
    """Token ids of a page (with BOS), for each the number that names its line or phrase (a token id, or -1), and of each
    exercise: what is asked, the answer, the answer's weights, and whether it must be known early.
    """

    page: list[int]
    lines: list[int]
    asked: list[list[int]]
    answers: list[list[int]]
    weights: list[list[float]]
    early: list[bool]

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

    An answer ends with EOS, except one that has a context: it is a word inside a text, tokenised as behind it, and must
    be known early.
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
    """For each token the number before it that starts its line or, if nearer, stands in a name like "[T1"; -1 where
    there is none, and at that number itself.
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
    """B documents: pages and their lines' numbers (B, P), R rows of exercises (R, S), the page of each (R,), what they see
    (R, 1, S, P + S), positions (R, S); targets, weights, whether known early, and the exercise's index in its document
    (R, S), at the positions that predict an answer's token.
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
    """Pad documents on the right into one batch, the exercises of a page packed in rows of about `ROW` tokens."""
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


@dataclass(frozen=True, slots=True)
class PageLogits:
    """Logits (N, V), float32: at the positions that predict a token of an answer, after all layers; at the tokens
    whose line starts with a number, after half of them; and of the answers to be known early, after three quarters.
    """

    answers: torch.Tensor
    lines: torch.Tensor
    early: torch.Tensor


def page_logits(model: PreTrainedModel, batch: PageBatch, bfloat16: bool = False) -> PageLogits:
    """What the model tells of a batch, `batch.weights > 0`, `batch.lines >= 0` and `batch.early` saying where."""
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
    """The weighted mean of -log p over the tokens of the answers, and its means over the lines and the early answers,
    0 where there are none.
    """

    answers: torch.Tensor
    lines: torch.Tensor
    early: torch.Tensor

    def total(self) -> torch.Tensor:
        """What training minimises."""
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
    """For each exercise, which of the tokens that the page decides are the model's first choice.

    All of them are if and only if greedy decoding writes that part of the answer.
    """
    batch = collate([document])
    counted = batch.weights > 0
    right = page_logits(model, batch).answers.argmax(dim=-1) == batch.targets[counted]
    decided, owner = batch.weights[counted] == 1, batch.owner[counted]
    return [right[decided & (owner == index)].tolist() for index in range(len(document.answers))]

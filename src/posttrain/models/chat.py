"""Prompts and answers as turns of a conversation, by the tokenizer's own chat template (`prompt: chat` of a model's entry).

    prompt ids = template([user: prompt], add_generation_prompt=True)
    answer ids = what template([user, assistant: answer]) has after these, up to the token that ends the turn
    reply ids  = what template([user, assistant, user: reply], add_generation_prompt=True) has after that

`use_template` checks a template once, and puts in front of it what makes it give the same ids everywhere: a thinking model
does not think, the date is always `TODAY` (a template may print the day), and there is one BOS if the tokenizer puts one
before a text. An exported policy has the template in this form. By it the other functions know a tokenizer that chats.

The names of special tokens in a text are characters like any other, and so are those of other tokens that the template
writes (`<think>`).

Left out: a system's turn, except one that the template writes by itself; tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError

TODAY = date(2024, 7, 26)  # the date that Llama 3's template falls back on
_CODES = ("%d", "%b", "%B", "%Y", "%y", "%m", "%A", "%a", "%H", "%M", "%S")
_DATE = "".join(f".replace({code!r}, {TODAY.strftime(code)!r})" for code in _CODES)
PREFACE = (
    "{% set enable_thinking = false %}"
    f"{{% macro strftime_now(format) %}}{{{{ format{_DATE} }}}}{{% endmacro %}}"
)
THOUGHT = ("<think>", "</think>")
QUESTION, ANSWER, REPLY = "Which one?", "This", "Why?"
CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Turns:
    """What a template writes around a question and its answer.

    head, tail: texts around a question in its prompt. before, after: around an answer, behind the prompt and up to the
    token `end`. asked: ids of the prompt of `QUESTION`. ends: how often `end` is in this prompt and its answer. names: what
    is text to a prompt and an answer, and tokens to the tokenizer. thinks: whether a prompt begins a thought, which the
    model ends.
    """

    head: str
    tail: str
    before: str
    after: str
    end: int
    asked: list[int]
    ends: int
    names: re.Pattern[str]
    thinks: bool


def use_template(tokenizer: PreTrainedTokenizerBase, name: str, start: Sequence[int]) -> None:
    """Make prompts and answers turns of the tokenizer's chat template; `UserError` that names the model if it cannot be.

    start: the special tokens that the tokenizer puts before a text.
    """
    refused = f"{name}: prompt: chat cannot be used, as its"
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise UserError(f"{refused} tokenizer has no chat template; set prompt: plain") from error
    template = template.removeprefix(PREFACE)  # of an exported policy
    tokenizer.chat_template = PREFACE + template
    try:
        if _ids(tokenizer, [QUESTION])[: len(start)] != list(start):
            names = "".join(tokenizer.convert_ids_to_tokens(list(start)))
            tokenizer.chat_template = f"{PREFACE}{{{{ {names!r} }}}}{template}"
        turns(tokenizer)
    except UserError as error:
        raise UserError(f"{refused} chat template {error}; set prompt: plain") from error
    except (TemplateError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{refused} chat template fails for one question: {reason}; set prompt: plain"
        ) from error


def turns(tokenizer: PreTrainedTokenizerBase) -> Turns | None:
    """What its template writes around an answer; None for a tokenizer of plain prompts."""
    template = tokenizer.chat_template
    chats = isinstance(template, str) and template.startswith(PREFACE)
    return _turns(tokenizer, template) if chats else None


@lru_cache(maxsize=8)
def _turns(tokenizer: PreTrainedTokenizerBase, template: str) -> Turns:
    """`UserError` with what the template does, if it cannot be used."""
    prompt, whole = _text(tokenizer, [QUESTION]), _text(tokenizer, [QUESTION, ANSWER])
    if QUESTION not in prompt:
        raise UserError("does not show the text of a turn as it is")
    if not whole.startswith(prompt):
        raise UserError("has a generation prompt that is no beginning of the whole conversation")
    before, found, rest = whole[len(prompt) :].partition(ANSWER)
    if not found:
        raise UserError("does not show the text of a turn as it is")
    added = {i: each for i, each in tokenizer.added_tokens_decoder.items() if each.content.strip()}
    if any(added[i].special for i in _encode(tokenizer, before) if i in added):
        raise UserError("leaves special tokens before an answer to the model")
    ends = [i for i in _encode(tokenizer, rest) if i in added]
    if not ends:
        raise UserError("ends an answer with no token of its own")
    asked = _ids(tokenizer, [QUESTION])
    ids = _ids(tokenizer, [QUESTION, ANSWER])
    names = [*THOUGHT, *(token.content for token in added.values())]
    return Turns(
        head=prompt.partition(QUESTION)[0],
        tail=prompt.partition(QUESTION)[2],
        before=before,
        after=rest.partition(added[ends[0]].content)[0],
        end=ends[0],
        asked=asked,
        ends=ids[: ids.index(ends[0], len(asked)) + 1].count(ends[0]),
        names=re.compile("|".join(map(re.escape, names))),
        thinks=prompt.rstrip().endswith(THOUGHT[0]),
    )


def prompt_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, own: Turns
) -> list[list[int]]:
    """Ids of each prompt: the user's turn, and the beginning of the assistant's."""
    made = _between(texts, tokenizer, own, own.head, own.tail)
    return [
        _ids(tokenizer, [text]) if ids is None else ids
        for text, ids in zip(texts, made, strict=True)
    ]


def answer_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, own: Turns
) -> list[list[int] | None]:
    """Ids of each answer after any prompt, with the end of the turn.

    None where its first token would be another after a prompt than alone, or the template changes it: then it must be
    tokenised alone.
    """
    end = str(tokenizer.convert_ids_to_tokens(own.end))
    start = _encode(tokenizer, own.tail)
    made = _between(texts, tokenizer, own, own.tail + own.before, own.after + end)
    return [
        _behind(own.asked, _ids(tokenizer, [QUESTION, text]), own.end)
        if ids is None
        else _behind(start, ids, own.end)
        for text, ids in zip(texts, made, strict=True)
    ]


def reply_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, own: Turns
) -> list[list[int]]:
    """Ids of each turn of the user after the end of an answer, and the beginning of the assistant's next."""
    end = str(tokenizer.convert_ids_to_tokens(own.end))
    shown = _text(tokenizer, [QUESTION, ANSWER, REPLY]).rpartition(REPLY)[0].rpartition(ANSWER)[2]
    made = _between(texts, tokenizer, own, shown.removeprefix(own.after), own.tail)
    assert shown.startswith(own.after + end)
    return [
        _behind_end(_ids(tokenizer, [QUESTION, ANSWER, text]), own) if ids is None else ids[1:]
        for text, ids in zip(texts, made, strict=True)
    ]


def answer_text(text: str, own: Turns) -> str:
    """The answer in a text that a model wrote: without the thoughts before it, and empty if they do not end."""
    text = text.removesuffix(own.after)
    if own.before and text.startswith(own.before):
        return text.removeprefix(own.before)
    begin, end = THOUGHT
    if own.thinks or text.lstrip().startswith(begin):
        return text.partition(end)[2].lstrip()
    return text


def _between(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, own: Turns, left: str, right: str
) -> Iterator[list[int] | None]:
    """Ids of left + text + right; None for a text that the template or the tokenizer may not take as it is.

    Rendering each text takes 30 times as long as tokenising it.
    """
    for start in range(0, len(texts), CHUNK):
        part = texts[start : start + CHUNK]
        encoded = tokenizer(
            [left + text + right for text in part],
            add_special_tokens=False,
            return_attention_mask=False,
            verbose=False,
        )
        for text, ids in zip(part, encoded["input_ids"], strict=True):
            yield ids if text and text == text.strip() and not own.names.search(text) else None


def _behind(start: list[int], ids: list[int], end: int) -> list[int] | None:
    """The ids after `start` up to the first `end`."""
    rest = ids[len(start) :]
    return rest[: rest.index(end) + 1] if ids[: len(start)] == start and end in rest else None


def _behind_end(ids: list[int], own: Turns) -> list[int]:
    """The ids after a question and its answer."""
    places = [place for place, each in enumerate(ids) if each == own.end]
    return ids[places[own.ends - 1] + 1 :]


def _messages(texts: Sequence[str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def _text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str:
    text = tokenizer.apply_chat_template(
        _messages(texts), tokenize=False, add_generation_prompt=len(texts) % 2 == 1
    )
    assert isinstance(text, str)
    return text


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        _messages(texts),
        return_dict=False,
        sanitize_control_tokens=True,
        add_generation_prompt=len(texts) % 2 == 1,
    )
    return ids


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids

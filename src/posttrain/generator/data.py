"""Examples and preference pairs as rows for TRL's trainers, tokenised here and never by TRL.

    SFT        {"input_ids", "labels"}                        labels are -100 on the prompt
    GRPO, RLOO {"prompt", "example"}                          text, and the example's place for the reward function
    DPO        {"prompt_ids", "chosen_ids", "rejected_ids"}

Token ids follow `models.tokens`: prompt and completion are tokenised apart, a completion ends with EOS. TRL would
tokenise them joined, and then ":" and "\\n" become one token in some vocabularies. Nothing is cut: a row over a limit
is dropped and named, or an error. Left out: chat templates, packing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.models.tokens import tokenize_answers, tokenize_prompts
from posttrain.tasks import Example, Task

IGNORED = -100
Row = dict[str, Any]
Overlong = Literal["drop", "error"]


@dataclass(frozen=True, slots=True)
class PairText:
    """A prompt with a better and a worse completion, as text."""

    id: str
    prompt: str
    chosen: str
    rejected: str


def prompt_completion_rows(
    examples: Sequence[Example],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_completion_tokens: int,
    overlong: Overlong = "drop",
) -> tuple[list[Row], list[str]]:
    """Rows for SFT on the gold answers, and the ids of the examples dropped for being too long."""
    prompts = tokenize_prompts([task.render_prompt(example) for example in examples], tokenizer)
    targets = tokenize_answers([task.render_target(example) for example in examples], tokenizer)
    sizes = [(len(p), len(t)) for p, t in zip(prompts, targets, strict=True)]
    kept, dropped = _fitting(
        [example["id"] for example in examples],
        sizes,
        max_prompt_tokens,
        max_completion_tokens,
        overlong,
    )
    rows = [
        {
            "input_ids": prompts[index] + targets[index],
            "labels": [IGNORED] * len(prompts[index]) + targets[index],
        }
        for index in kept
    ]
    return rows, dropped


def prompt_rows(
    examples: Sequence[Example],
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    overlong: Overlong = "drop",
) -> tuple[list[Row], list[str]]:
    """Rows for GRPO and RLOO, and the ids dropped; `example` is the index into `examples`."""
    texts = [task.render_prompt(example) for example in examples]
    sizes = [(len(ids), 0) for ids in tokenize_prompts(texts, tokenizer)]
    ids = [example["id"] for example in examples]
    kept, dropped = _fitting(ids, sizes, max_prompt_tokens, 0, overlong)
    return [{"prompt": texts[index], "example": index} for index in kept], dropped


def mixed_questions(samples: Sequence[Row], at_least: int) -> set[str]:
    """The ids of the questions of which some draws are right and others wrong; `UserError` if they are too few.

    Only these teach a method that compares the draws of a question: where all are right or all wrong, every
    advantage is 0, or of the smaller parts of the reward alone.
    """
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for record in samples:
        verdicts[record["id"]].add(record["correct"])
    mixed = {name for name, found in verdicts.items() if len(found) == 2}
    if len(mixed) < at_least:
        raise UserError(
            f"of {len(verdicts)} sampled questions {len(mixed)} have right and wrong answers, fewer than "
            f"prompts_per_step={at_least}; raise sample.questions or sample.count, or ask all training "
            "questions (rl.generator.METHOD.prompts=all)"
        )
    return mixed


def pair_rows(
    pairs: Sequence[PairText],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_completion_tokens: int,
    overlong: Overlong = "drop",
) -> tuple[list[Row], list[str]]:
    """Rows for DPO, and the ids dropped. A rejected text that was cut off when sampled ends with EOS here."""
    prompts = tokenize_prompts([pair.prompt for pair in pairs], tokenizer)
    chosen = tokenize_answers([pair.chosen for pair in pairs], tokenizer)
    rejected = tokenize_answers([pair.rejected for pair in pairs], tokenizer)
    sizes = [
        (len(p), max(len(c), len(r))) for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    ids = [pair.id for pair in pairs]
    kept, dropped = _fitting(ids, sizes, max_prompt_tokens, max_completion_tokens, overlong)
    rows = [
        {
            "prompt_ids": prompts[index],
            "chosen_ids": chosen[index],
            "rejected_ids": rejected[index],
        }
        for index in kept
    ]
    return rows, dropped


def _fitting(
    ids: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    max_prompt_tokens: int,
    max_completion_tokens: int,
    overlong: Overlong,
) -> tuple[list[int], list[str]]:
    """Indices within both limits, and the ids of the others; `sizes` are (prompt, completion) tokens."""
    kept = [
        index
        for index, (prompt, completion) in enumerate(sizes)
        if prompt <= max_prompt_tokens and completion <= max_completion_tokens
    ]
    over = sorted(set(range(len(ids))) - set(kept))
    if over and overlong == "error":
        prompt, completion = sizes[over[0]]
        raise UserError(
            f"{len(over)} of {len(ids)} examples exceed max_prompt_tokens={max_prompt_tokens} or "
            f"max_candidate_tokens={max_completion_tokens}, the first is {ids[over[0]]}: prompt {prompt}, "
            f"completion {completion} tokens; raise the limit or, where the task has pages, shorten them "
            "(prepare.context, prepare.top_n)"
        )
    if not kept:
        raise UserError(
            f"no example fits {max_prompt_tokens} prompt and {max_completion_tokens} completion tokens"
        )
    return kept, [ids[index] for index in over]

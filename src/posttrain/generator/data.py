"""Examples and preference pairs as rows for TRL's trainers, tokenised here and never by TRL.

    SFT        {"input_ids", "labels"}                        labels are -100 on the prompt
    GRPO, RLOO {"prompt", "example"}                          the text, and the example's index for the reward function
    DPO        {"prompt_ids", "chosen_ids", "rejected_ids"}

Of an environment the rows of SFT are those of the demonstrations, with labels on the expert's turns alone, and pairs are
of episodes: {"chosen", "rejected"}, lists of `rollouts.episode.Row`. So they are where questions stand beside environments;
the demonstration of a question is its gold answer.

Token ids follow `models.tokens`: prompt and completion are tokenised apart, and a completion ends with EOS, or the end of
a turn. TRL would tokenise them together, and ":" and "\\n" would become one token in some vocabularies. Nothing is
truncated: a row over a limit is dropped and counted.

Left out: packing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.not_trained import NothingToTrain
from posttrain.core.params import Episodes, Model
from posttrain.core.schema import Parts
from posttrain.models.tokens import tokenize_answers, tokenize_prompts
from posttrain.rollouts import episode
from posttrain.rollouts.preferences import questions_by_verdict
from posttrain.tasks import Example, is_question

DEMONSTRATIONS = Path("data/demonstrations")
IGNORED = -100
Row = dict[str, Any]


@dataclass(frozen=True)
class Data:
    """The questions to train on, and the SFT generator's answers to them for one seed, as rows for trainers.

    samples, pairs_folder: outputs of the stages generator_sample and generator_pairs. episodes: how an environment is
    played, None in a task of one turn.
    """

    examples: Sequence[Example]
    tokenizer: PreTrainedTokenizerBase
    model: Model
    samples: Path
    pairs_folder: Path
    episodes: Episodes | None = None

    def gold_answers(self, which: Literal["all", "mixed"] = "all") -> list[Row]:
        """The prompts of all or of the mixed questions (see `prompts`) with their gold answers, or demonstrations."""
        limits = self.model.max_prompt_tokens, self.model.max_candidate_tokens
        examples = self.examples
        if which == "mixed":
            examples = [self.examples[index] for index in self._mixed(range(len(self.examples)))]
        if self.episodes is not None:
            path = DEMONSTRATIONS / "train.jsonl"
            shown = read_episodes(path, examples, self.tokenizer, self.model, self.episodes)
            print(f"{len(shown)} demonstrations from {len(examples)} training starts")
            return [labelled(row) for one in shown for row in one.rows]
        rows, dropped = prompt_completion_rows(examples, self.tokenizer, *limits)
        print(f"{len(rows)} training questions, {len(dropped)} dropped as too long")
        return rows

    def prompts(self, which: Literal["all", "mixed"]) -> list[Row]:
        """The prompts of all questions, or of those with both right and wrong samples (mixed).

        A method that compares the samples of a question learns from mixed ones alone: where all are right or all wrong,
        every advantage is 0 or comes from the smaller parts of the reward. `NothingToTrain` if there are none.
        """
        limit = self.model.max_prompt_tokens
        rows, dropped = prompt_rows(self.examples, self.tokenizer, limit)
        print(f"{len(rows)} training questions, {len(dropped)} dropped as too long")
        if not rows:
            raise NothingToTrain(
                f"none of the {len(dropped)} training questions fits max_prompt_tokens={limit}"
            )
        if which == "mixed":
            mixed = self._mixed([row["example"] for row in rows])
            rows = [row for row in rows if row["example"] in mixed]
            print(f"{len(rows)} of them have right and wrong samples and are asked")
        return rows

    def _mixed(self, indices: Sequence[int]) -> list[int]:
        """Those of the examples with both right and wrong samples; `NothingToTrain` if there are none."""
        samples = read_jsonl(self.samples / "samples.jsonl")
        mixed = questions_by_verdict(samples)["mixed"]
        found = [index for index in indices if self.examples[index]["id"] in mixed]
        if not found:
            raise NothingToTrain(f"no question to ask (prompts: mixed): {told(samples)}")
        return found

    def pairs(self, part: Literal["train", "held_out"]) -> list[Row]:
        """Preference pairs, each with the prompt that its answers were sampled from.

        `NothingToTrain` if there are none to train on; there may be none held out.
        """
        path = self.pairs_folder / f"{part}.jsonl"
        if self.episodes is not None:
            return self._pairs_of_episodes(path, part, self.episodes)
        by_id = {example["id"]: example for example in self.examples}
        texts = [
            PairText(
                pair["id"],
                by_id[pair["id"]]["prompts"][pair["variant"]],
                pair["chosen"],
                pair["rejected"],
            )
            for pair in read_jsonl(path)
            if pair["id"] in by_id
        ]
        # A text may tokenise to more tokens than were sampled, and an unfinished one gets EOS here.
        limits = self.model.max_prompt_tokens, 2 * self.model.max_candidate_tokens
        rows, dropped = pair_rows(texts, self.tokenizer, *limits)
        print(f"{path}: {len(rows)} pairs, {len(dropped)} dropped as too long")
        if part == "train" and not rows:
            samples = read_jsonl(self.samples / "samples.jsonl")
            raise NothingToTrain(
                f"all {len(dropped)} preference pairs for training exceed max_prompt_tokens={limits[0]} or "
                f"{limits[1]} tokens of an answer"
                if dropped
                else f"no preference pair: {told(samples)}"
            )
        return rows

    def _pairs_of_episodes(self, path: Path, part: str, settings: Episodes) -> list[Row]:
        """The pairs of `path`, whose texts name two episodes from the same start."""
        samples = read_jsonl(self.samples / "samples.jsonl")
        own = {example["id"] for example in self.examples}
        pairs = [pair for pair in read_jsonl(path) if pair["id"] in own]
        named = {(pair["id"], pair[kind]) for pair in pairs for kind in ("chosen", "rejected")}
        records = {(row["id"], row["text"]): row for row in samples}
        asked = [records[key] for key in sorted(named)]
        played = as_played(asked, self.examples, self.tokenizer, self.model, settings)
        rows_of = dict(zip(sorted(named), (one.rows for one in played), strict=True))
        rows = [
            {kind: rows_of[pair["id"], pair[kind]] for kind in ("chosen", "rejected")}
            for pair in pairs
        ]
        print(f"{path}: {len(rows)} pairs of episodes")
        if part == "train" and not rows:
            raise NothingToTrain(f"no preference pair: {told(samples)}")
        return rows


def of_parts(examples: Sequence[Example], parts: Parts) -> list[Example]:
    """The examples of a mixture's `parts`."""
    if parts == "all":
        return list(examples)
    if parts == "environments":
        return [example for example in examples if "turns" in example and not is_question(example)]
    return [example for example in examples if example.get("part") in parts]


def as_played(
    records: Sequence[Row],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Model,
    settings: Episodes,
) -> list[episode.Episode]:
    """Recorded episodes with their token ids."""
    by_id = {example["id"]: example for example in examples}
    asked = [by_id[record["id"]] for record in records]
    prompts = tokenize_prompts([example["prompts"]["direct"] for example in asked], tokenizer)
    played = []
    for record, example, prompt in zip(records, asked, prompts, strict=True):
        limits = episode.limits(example, prompt, settings, model.max_candidate_tokens)
        played.append(episode.read_record(record, prompt, tokenizer, *limits))
    return played


def read_episodes(
    path: Path,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    model: Model,
    settings: Episodes,
) -> list[episode.Episode]:
    """The demonstrations of those examples that fit the model's entry; `UserError` if there are none."""
    rows, dropped = prompt_rows(examples, tokenizer, model.max_prompt_tokens)
    wanted = {examples[row["example"]]["id"] for row in rows}
    records = [record for record in read_jsonl(path) if record["id"] in wanted]
    if not records:
        raise UserError(
            f"{path}: no demonstration of the {len(examples)} starts, of which {len(dropped)} are too long"
        )
    limit = model.max_prompt_tokens + model.max_candidate_tokens
    questions = {example["id"] for example in examples if is_question(example)}
    return [
        one
        for one in as_played(records, examples, tokenizer, model, settings)
        if one.id not in questions or len(one.rows[0].ids) <= limit
    ]


def labelled(row: episode.Row) -> Row:
    """A row of an episode for SFT: labels on the policy's turns."""
    labels = [id if written else IGNORED for id, written in zip(row.ids, row.actions, strict=True)]
    return {"input_ids": list(row.ids), "labels": labels}


@dataclass(frozen=True, slots=True)
class PairText:
    """A prompt with a better and a worse completion, as text."""

    id: str
    prompt: str
    chosen: str
    rejected: str


def prompt_completion_rows(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_completion_tokens: int,
) -> tuple[list[Row], list[str]]:
    """Rows for SFT on the gold answers, and the ids of the examples dropped as too long; `UserError` if no row fits."""
    prompts = tokenize_prompts([example["prompts"]["direct"] for example in examples], tokenizer)
    targets = tokenize_answers([example["target"] for example in examples], tokenizer)
    sizes = [(len(p), len(t)) for p, t in zip(prompts, targets, strict=True)]
    kept, dropped = _fitting(
        [example["id"] for example in examples],
        sizes,
        max_prompt_tokens,
        max_completion_tokens,
    )
    if not kept:
        raise UserError(
            f"none of the {len(examples)} training questions fits max_prompt_tokens={max_prompt_tokens} and "
            f"max_candidate_tokens={max_completion_tokens}; raise the limits or, where the task has pages, "
            "shorten them (examples.context, examples.top_n)"
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
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
) -> tuple[list[Row], list[str]]:
    """Rows for GRPO and RLOO, and the ids dropped as too long; `example` is an index into `examples`."""
    texts = [example["prompts"]["direct"] for example in examples]
    sizes = [(len(ids), 0) for ids in tokenize_prompts(texts, tokenizer)]
    ids = [example["id"] for example in examples]
    kept, dropped = _fitting(ids, sizes, max_prompt_tokens, 0)
    return [{"prompt": texts[index], "example": index} for index in kept], dropped


def told(samples: Sequence[Row]) -> str:
    """How many of the sampled questions have right and wrong answers, only right ones, or only wrong ones."""
    if not samples:
        return "no question was sampled"
    found = questions_by_verdict(samples)
    counts = {
        "with right and wrong answers": len(found["mixed"]),
        "with right answers only": len(found["all_right"]),
        "with wrong answers only": len(found["all_wrong"]),
        "unscorable": len(found["unscorable"]),
    }
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    return f"of {sum(counts.values())} sampled questions, {', '.join(parts)}"


def pair_rows(
    pairs: Sequence[PairText],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    max_completion_tokens: int,
) -> tuple[list[Row], list[str]]:
    """Rows for DPO, and the ids dropped as too long. A rejected text that was sampled without EOS gets it here."""
    prompts = tokenize_prompts([pair.prompt for pair in pairs], tokenizer)
    chosen = tokenize_answers([pair.chosen for pair in pairs], tokenizer)
    rejected = tokenize_answers([pair.rejected for pair in pairs], tokenizer)
    sizes = [
        (len(p), max(len(c), len(r))) for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    ids = [pair.id for pair in pairs]
    kept, dropped = _fitting(ids, sizes, max_prompt_tokens, max_completion_tokens)
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
) -> tuple[list[int], list[str]]:
    """Indices of the rows within both limits, and the ids of the others.

    sizes: (prompt, completion), in tokens.
    """
    kept = [
        index
        for index, (prompt, completion) in enumerate(sizes)
        if prompt <= max_prompt_tokens and completion <= max_completion_tokens
    ]
    return kept, [ids[index] for index in sorted(set(range(len(ids))) - set(kept))]

"""Starts of episodes: what the expert does from one, what a policy reads, and the games of stage `fetch` as examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params, Variant
from posttrain.environments import FORMS, End, Environment, write_action
from posttrain.tasks import Example


@dataclass(frozen=True, slots=True)
class Played:
    """The expert's episode: its first action, how it ended, its turns and the sum of its rewards."""

    first: str
    end: End
    turns: int
    earned: float


def play_expert(environment: Environment, most: int) -> Played | None:
    """The expert's episode from the present state, of at most so many turns; None where it knows no action."""
    first, earned = "", 0.0
    for turn in range(1, most + 1):
        action = environment.expert()
        if action is None:
            return None
        first = first or action
        outcome = environment.step(action)
        earned += outcome.reward
        if outcome.end is not None:
            return Played(first, outcome.end, turn, earned)
    return Played(first, "limit", most, earned)


def prompt(rules: str, hints: Mapping[Variant, str], example: Example, variant: Variant) -> str:
    """Rules, the hint of the variant, the form of an answer, and the first observation, after which the answer begins."""
    hint = hints.get(variant, "")
    return f"{rules}{hint}Answer: {FORMS[example['form']]}\n{example['question']}"


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the rows in `source`."""
    form = params.episodes.form
    for row in iterate_jsonl(source / f"{split}.jsonl"):
        yield {**row, "form": form, "target_answer": write_action(row["expert"], form)}


def measure(examples: Iterable[Example]) -> dict[str, Any]:
    """Games of each kind, and means over one split."""
    rows = [*examples]
    kinds = Counter(row["kind"] for row in rows)
    return {
        "kinds": dict(sorted(kinds.items())),
        "expert_turns_mean": round(fmean(row["expert_turns"] for row in rows), 2),
        "expert_turns_most": max(row["expert_turns"] for row in rows),
        "question_characters_mean": round(fmean(len(row["question"]) for row in rows), 1),
    }

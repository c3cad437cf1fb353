"""Starts of episodes: the games of stage `fetch`, with the expert's first answer in the form that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params
from posttrain.environments import write_action
from posttrain.tasks import Example


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

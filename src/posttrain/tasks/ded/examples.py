"""The examples, made from audited rows. MBPP's validation split is taken out of train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params
from posttrain.tasks import Example, read_options
from posttrain.tasks.ded.options import Options
from posttrain.tasks.subset import subset


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited rows in `source`."""
    read_options(params, Options)
    if split == "test" or (source / "val.jsonl").is_file():
        yield from iterate_jsonl(source / f"{split}.jsonl")
        return
    dataset, key = params.selected_dataset, f"params.yaml: datasets.{params.dataset}.val"
    if dataset.val is None:
        raise UserError(f"{key}: missing")
    rows = [*iterate_jsonl(source / "train.jsonl")]
    if dataset.val >= len(rows):
        raise UserError(
            f"{key}: {dataset.val} of the {len(rows)} rows of train leave none to train on"
        )
    held_out = {row["id"] for row in subset(rows, dataset.val, dataset.seed).rows}
    yield from (row for row in rows if (row["id"] in held_out) == (split == "val"))


def measure(examples: Iterable[Example]) -> dict[str, float]:
    """Means over one split."""
    words, lines, hidden = [], [], []
    for example in examples:
        words.append(len(example["question"].split()))
        lines.append(example["program"].count("\n") + 1)
        hidden.append(len(example["hidden"]))
    return {
        "words_mean": round(fmean(words), 2),
        "program_lines_mean": round(fmean(lines), 2),
        "hidden_cases_mean": round(fmean(hidden), 2),
    }

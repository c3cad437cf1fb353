"""The examples: the audited rows as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params
from posttrain.tasks import Example, read_options
from posttrain.tasks.abd.options import Options


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited rows in `source`."""
    read_options(params, Options)
    return iterate_jsonl(source / f"{split}.jsonl")


def measure(examples: Iterable[Example]) -> dict[str, float]:
    """Means over one split."""
    lines = [example["question"].count("\n") + 1 for example in examples]
    return {"program_lines_mean": round(fmean(lines), 2)}

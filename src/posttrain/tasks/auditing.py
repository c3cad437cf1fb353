"""What the audits of all tasks share: rows left out with a reason, and the lengths of texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import UserError
from posttrain.files import write_jsonl

LENGTH_LIMITS = (256, 512, 1024, 2048)

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out: where it was and why (`reason` is a class, `detail` one line)."""

    split: str
    row: int
    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Audit:
    """`clean` rows per split in order, the `rejected` ones, and `metrics` as nested numbers."""

    clean: dict[str, list[dict[str, Any]]]
    rejected: list[Rejected]
    metrics: dict[str, Any]


def write_audit(result: Audit, source: Path, files: Mapping[str, str], directory: Path) -> None:
    """Write each split and rejected.jsonl into `directory`; `UserError` when a split keeps no row."""
    for split, rows in result.clean.items():
        if not rows:
            raise UserError(
                f"{source / files[split]}: every row was rejected, the first because "
                f"{next(row.detail for row in result.rejected if row.split == split)}"
            )
        write_jsonl(directory / f"{split}.jsonl", rows)
    write_jsonl(directory / "rejected.jsonl", [asdict(row) for row in result.rejected])


def describe_lengths(lengths: Sequence[int]) -> dict[str, float]:
    """Mean, quantiles (nearest rank) and maximum, zeros for none; how many are over each of `LENGTH_LIMITS`."""
    over = {f"over_{limit}": sum(length > limit for length in lengths) for limit in LENGTH_LIMITS}
    if not lengths:
        return dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), 0.0) | over
    ranked = sorted(lengths)

    def quantile(share: float) -> int:
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]

    return {
        "mean": round(sum(ranked) / len(ranked), 1),
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p95": quantile(0.95),
        "p99": quantile(0.99),
        "max": ranked[-1],
        **over,
    }


def count_words(text: str) -> int:
    """Words and punctuation marks."""
    return len(_TOKEN.findall(text))

"""Tools for the audits of all tasks: rejecting rows with a reason, and measuring the lengths of texts.

In every task a row is rejected, and not counted in the profile, if JSON in UTF-8 cannot hold it:

    not_writable          a text has half of a surrogate pair (`"\\ud83d"`), or a number is NaN or infinite
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from posttrain.core.errors import UserError
from posttrain.core.files import escape_surrogates, unwritable, write_jsonl

LENGTH_LIMITS = (256, 512, 1024, 2048)

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out: its position, and why (`reason` is a class, `detail` one line)."""

    split: str
    row: int
    id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Audit:
    """The rows left out, and `metrics` as nested numbers, of which `metrics[split]["clean"]` counts the sound rows."""

    rejected: list[Rejected]
    metrics: dict[str, Any]


Keep = Callable[[str, Iterator[dict[str, Any]]], None]


class Profile(Protocol):
    """Counts over the rows of a split, added one by one."""

    def add(self, row: dict[str, Any]) -> None: ...
    def summary(self) -> dict[str, Any]: ...


def audit_split(
    split: str,
    rows: Iterable[dict[str, Any]],
    problem: Callable[[dict[str, Any], int], tuple[str, str] | None],
    profile: Profile,
    rejected: list[Rejected],
    keep: Keep,
) -> dict[str, Any]:
    """Audit a split row by row, and return its metrics.

    problem(row, index): (reason, detail) for a row that must be left out, which is added to `rejected`; None for a
    sound row, which is passed to `keep`.
    """
    before, clean = len(rejected), 0

    def sound() -> Iterator[dict[str, Any]]:
        nonlocal clean
        for index, row in enumerate(rows):
            found = _not_writable(row)
            if found is None:
                profile.add(row)
                found = problem(row, index)
            if found is None:
                clean += 1
                yield row
            else:
                rejected.append(Rejected(split, index, escape_surrogates(row["id"]), *found))

    keep(split, sound())
    reasons = Counter(row.reason for row in rejected[before:])
    return {
        "rows": clean + reasons.total(),
        "clean": clean,
        "rejected": dict(sorted(reasons.items())),
        **profile.summary(),
    }


def _not_writable(row: dict[str, Any]) -> tuple[str, str] | None:
    found = unwritable(row)
    return None if found is None else ("not_writable", found)


def let_go(split: str, rows: Iterator[dict[str, Any]]) -> None:
    """A `Keep` that drops the rows, for the metrics alone."""
    for _ in rows:
        pass


def write_audit(
    audit_splits: Callable[[Keep], Audit], source: Path, files: Mapping[str, str], directory: Path
) -> Audit:
    """Write each split's sound rows and rejected.jsonl into `directory`.

    audit_splits: audits the splits of `files` and passes the sound rows of each to its argument, which writes them as
    they come. `UserError` if a split keeps no row.
    """
    result = audit_splits(lambda split, rows: write_jsonl(directory / f"{split}.jsonl", rows))
    for split, name in files.items():
        if not result.metrics[split]["clean"]:
            raise UserError(
                f"{source / name}: every row was rejected, the first because "
                f"{next(row.detail for row in result.rejected if row.split == split)}"
            )
    write_jsonl(directory / "rejected.jsonl", [asdict(row) for row in result.rejected])
    return result


def describe_lengths(lengths: Sequence[int]) -> dict[str, float]:
    """Mean, quantiles (nearest rank) and maximum, all 0 for no lengths; the number over each of `LENGTH_LIMITS`."""
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
    """The number of words and punctuation marks."""
    return len(_TOKEN.findall(text))

"""A random part of a split."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Subset:
    """Rows of a split in their order, and how many the split has."""

    rows: list[Row]
    of: int


def subset(rows: Iterable[Row], count: int, seed: int) -> Subset:
    """`count` of the rows, or all if there are fewer: those with the smallest hashes of seed and id.

    So a larger part has the rows of a smaller one. No more than `count` rows are in memory.
    """
    total = 0

    def hashed() -> Iterable[tuple[bytes, int, Row]]:
        nonlocal total
        for row in rows:
            name = f"subset/{seed}/{row['id']}"
            yield hashlib.sha256(name.encode()).digest(), total, row
            total += 1

    kept = heapq.nsmallest(count, hashed(), key=itemgetter(0, 1))
    return Subset([row for _, _, row in sorted(kept, key=itemgetter(1))], total)

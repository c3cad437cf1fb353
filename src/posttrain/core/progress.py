"""A progress bar for loops that take minutes on real data and a moment on the sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Row = TypeVar("Row")
DELAY = 5.0  # seconds


def shown(rows: Iterable[Row], what: str) -> Iterator[Row]:
    """The rows, and after `DELAY` seconds a bar that counts them on stderr, named `what`."""
    yield from tqdm(rows, desc=what, unit=" rows", delay=DELAY, mininterval=2)

"""The facts of a page that the model sees: all, those that a search finds, or the gold ones.

A fact is one sentence of the text or one row of the table, named as in FinQA's `gold_inds` (`text_12` counts over
`pre_text + post_text`, `table_3` is row 3 with row 0 the header). The search is BM25 (Robertson and Zaragoza, "The
Probabilistic Relevance Framework", 2009) over lightly stemmed words, with the question alone as query, plus two bonuses
that were set on the training split: for words of a row's label that the question repeats, and for being a row of the
table. The header is shown with any row of the table, so it is not ranked.

Left out: dense retrieval, and anything that looks at the program or at `gold_inds`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

CONTEXTS = ("full", "retrieved", "gold")

K1 = 1.2
B = 0.5
LABEL_BONUS = 5.0
TABLE_BONUS = 2.0

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")
_STOP = frozenset(
    """
    a an and are as at be been by did do does for from had has have how if in is it its of on or s
    that the their there this to was were what when which who will with would
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence or a table row: `key` as in `gold_inds`, its text, and the label if it is a row, else empty."""

    key: str
    text: str
    label: str = ""


def page_facts(row: Mapping[str, Any]) -> list[Fact]:
    """All facts of the page in reading order, without the table's header."""
    before = len(row["pre_text"])
    facts = [Fact(f"text_{i}", text) for i, text in enumerate(row["pre_text"])]
    table = row["table"]
    for index in range(1, len(table)):
        label = table[index][0] if table[index] else ""
        facts.append(Fact(f"table_{index}", row_sentence(table, index), label))
    facts += [Fact(f"text_{before + i}", text) for i, text in enumerate(row["post_text"])]
    return facts


def row_sentence(table: Sequence[Sequence[str]], index: int) -> str:
    """A table row in words, as FinQA writes it: "the sales of 2009 is $ 5829 ; ..."."""
    return "".join(text for text, _ in row_pieces(table, index))


def row_pieces(table: Sequence[Sequence[str]], index: int) -> list[tuple[str, int | None]]:
    """The pieces that make up the row's sentence, each with its column if it is a cell, else None.

    The label is repeated in the sentence, and has its column the first time only.
    """
    header, cells = table[0], table[index]
    label = cells[0] if cells else ""
    pieces: list[tuple[str, int | None]] = []
    if header and header[0]:
        pieces.append((f"{header[0]} ", None))
    if len(cells) < 2:
        return [*pieces, (label, 0)]
    for column in range(1, len(cells)):
        of = f" of {header[column]}" if column < len(header) and header[column] else ""
        pieces += [
            ("the " if column == 1 else " the ", None),
            (label, 0 if column == 1 else None),
            (f"{of} is ", None),
            (cells[column], column),
            (" ;", None),
        ]
    return pieces


def select_facts(row: Mapping[str, Any], context: str, top_n: int) -> set[str]:
    """Keys of the facts to show; for a row without gold facts, `gold` is `retrieved`."""
    facts = page_facts(row)
    if context == "full":
        return {fact.key for fact in facts}
    if context == "gold":
        gold = {fact.key for fact in facts if fact.key in row["qa"]["gold_inds"]}
        if gold:
            return gold
    ranking = rank_facts(row["qa"]["question"], facts)
    return {facts[index].key for index in ranking[:top_n]}


def rank_facts(question: str, facts: Sequence[Fact]) -> list[int]:
    """Indices of the facts, best first; equal scores keep the page's order."""
    query = set(words(question))
    scores = bm25([words(fact.text) for fact in facts], query)
    for index, fact in enumerate(facts):
        if fact.key.startswith("table_"):
            label = set(words(fact.label))
            scores[index] += TABLE_BONUS
            scores[index] += LABEL_BONUS * len(label & query) / max(1, len(label))
    return sorted(range(len(facts)), key=lambda index: (-scores[index], index))


def bm25(
    documents: Sequence[Sequence[str]], query: Iterable[str], k1: float = K1, b: float = B
) -> list[float]:
    """BM25 score of each document (a list of words); all zeros for an empty query."""
    counts = [Counter(document) for document in documents]
    mean_length = sum(map(len, documents)) / max(1, len(documents)) or 1.0
    scores = [0.0] * len(documents)
    # Sorted, as floating-point sums would depend on the hash seed.
    for word in sorted(set(query)):
        having = sum(word in count for count in counts)
        if not having:
            continue
        idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        for index, count in enumerate(counts):
            if frequency := count[word]:
                norm = k1 * (1 - b + b * len(documents[index]) / mean_length)
                scores[index] += idf * frequency * (k1 + 1) / (frequency + norm)
    return scores


def words(text: str) -> list[str]:
    """Stems of the words and numbers, without stop words."""
    return [stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP]


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A crude stem: enough to match "leases" with "lease" and "increased" with "increase"."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    for ending in ("ing", "ed", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word

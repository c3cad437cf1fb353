"""A shop: its products, its goals, and a search engine over them.

The search engine is BM25 in Lucene's variant and with the numbers of Pyserini, by which WebShop searches (k1 = 0.9,
b = 0.4; lower case, without stop words, stemmed by Porter), as the package bm25s has it. Of equal scores the product that
comes first in the catalogue comes first; a product that has none of the words is no hit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.environments.webshop.catalogue import generate
from posttrain.environments.webshop.goals import read_goals
from posttrain.environments.webshop.nouns import MISSING
from posttrain.environments.webshop.products import (
    Product,
    described,
    read_folder,
    read_products,
)

_K1, _B = 0.9, 0.4
_WORD = r"(?u)\b\w+\b"


class Shop:
    """products: by asin. goals: of all of them, in the products' order. digest: differs where any product does."""

    def __init__(self, folder: str | None, size: int, seed: int, key: str) -> None:
        files = generate(seed, size) if folder is None else read_folder(Path(folder), key)
        self.products: Mapping[str, Product] = read_products(files, seed, key)
        self.goals = read_goals(files, self.products, seed, key)
        self._all = [*self.products.values()]
        if not self._all:
            raise UserError(f"{key}: {folder} has no products")
        self.digest = hashlib.sha256(described(self._all)).hexdigest()[:16]
        self._engine, self._words = _index([product.indexed for product in self._all])

    def search(self, words: str, most: int) -> Sequence[Product]:
        """The products that match the words best, at most so many."""
        found = self._words(words)
        if not found:
            return []
        scores = self._engine.get_scores(found)
        best = (-scores).argsort(kind="stable")[:most]
        return [self._all[place] for place in best if scores[place] > 0]


@lru_cache(maxsize=4)
def get_shop(folder: str | None, size: int, seed: int) -> Shop:
    """The shop of a folder, or of `size` generated products; one for all episodes."""
    return Shop(folder, size, seed, "options.products")


def _index(texts: list[str]) -> tuple[Any, Any]:
    """The search engine, and the function from a text to its words."""
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise UserError(MISSING.format(error.name)) from error
    stem = Stemmer.Stemmer("porter")

    def split(texts: list[str]) -> Any:
        return bm25s.tokenize(
            texts,
            token_pattern=_WORD,
            stopwords="en",
            stemmer=stem,
            return_ids=False,
            show_progress=False,
        )

    engine = bm25s.BM25(method="lucene", k1=_K1, b=_B)
    engine.index(split(texts), show_progress=False)
    return engine, lambda text: split([text])[0]

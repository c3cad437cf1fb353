"""The nouns of a title, by which the reward tells whether a product is of the wanted type.

WebShop takes those of a spaCy model, which the package index does not have. The default is TextBlob's tagger, a lexicon with
rules for words that are not in it. `spacy MODEL`'s tags are taken instead where the option `tagger` names a model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from posttrain.core.errors import UserError

TEXTBLOB = "textblob"
MISSING = (
    "the environment webshop needs the package {}; pip install -r requirements-environments.txt"
)

Nouns = Callable[[str], tuple[str, ...]]


@lru_cache(maxsize=2)
def get_nouns(tagger: str) -> Nouns:
    """The function from a title to its nouns in lower case, one for each time that they occur."""
    tags = _textblob() if tagger == TEXTBLOB else _spacy(tagger)

    @lru_cache(maxsize=100_000)
    def nouns(title: str) -> tuple[str, ...]:
        return tuple(word.lower() for word, noun in tags(title) if noun)

    return nouns


def _textblob() -> Callable[[str], list[tuple[str, bool]]]:
    try:
        from textblob.en.taggers import PatternTagger
    except ImportError as error:
        raise UserError(MISSING.format(error.name)) from error
    tagger: Any = PatternTagger()
    return lambda title: [(word, tag.startswith("NN")) for word, tag in tagger.tag(title)]


def _spacy(model: str) -> Callable[[str], list[tuple[str, bool]]]:
    try:
        import spacy

        tagger: Any = spacy.load(model)
    except (ImportError, OSError) as error:
        raise UserError(
            f"options.tagger: {model!r} is neither {TEXTBLOB!r} nor a spaCy model that is installed"
        ) from error
    return lambda title: [(each.text, each.pos_ in ("NOUN", "PROPN")) for each in tagger(title)]

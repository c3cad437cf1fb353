"""The expert: a buyer who reads pages and the instruction, and nothing else.

It searches for the instruction's words, and then for the last of them alone, which should be the type of product. It opens
what may fit in the order of the hits, reads the features, goes back if a word, an option or the price does not fit, and buys
what fits, with the options that the instruction names. If nothing does, it buys what fits best of all that it saw.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from posttrain.environments.webshop.pages import BUY, NEXT, PREV, Page

_BOUND = re.compile(r",? and price lower than ([\d.]+) dollars")
_OPTIONS = re.compile(r" with (\w[^,]*: .*)$")
_WORD = re.compile(r"\w+")
_SMALL = """a am an and any are as at be but by can find for from get has have i im in is it like looking me my need
of on or some something than that the their this to want which will with would"""
_SKIPPED = frozenset(_SMALL.split())


@dataclass(slots=True)
class _Seen:
    """What was read of a product. place: the latest of the buyer's searches that found it, and the page of its results."""

    place: tuple[int, int] | None = None
    words: set[str] = field(default_factory=set)
    cheap: bool = True
    lacks: bool = False  # an option that the instruction names
    opened: bool = False
    read: bool = False  # its features, too


class Buyer:
    """Of one episode; `see` takes each page in turn, also those that others led to."""

    def __init__(self, instruction: str) -> None:
        bound = _BOUND.search(instruction)
        self._bound = float(bound[1]) if bound else None
        plain = _BOUND.sub("", instruction)
        options = _OPTIONS.search(plain)
        self._named = _pairs(options[1]) if options else {}
        self._text = plain.lower()
        words = _words(plain[: options.start()] if options else plain)
        self._wanted = [word for word in words if word not in _SKIPPED] or words
        self._type = self._wanted[-1]
        self._searches = [f"search[{' '.join(self._wanted)}]", f"search[{self._type}]"]
        self._ahead = (
            0  # of its searches, the one that it goes through; after the last it has seen all
        )
        self._shown: int | None = None  # of its searches, the one whose results are shown
        self._seen: dict[str, _Seen] = {}
        self._page: Page | None = None

    @property
    def query(self) -> str:
        """The search for the instruction's words."""
        return self._searches[0]

    def see(self, page: Page, action: str | None = None) -> None:
        """Read a page; `action` is what led there."""
        self._page = page
        if action is not None and action.startswith("search["):
            own = action in self._searches
            self._shown = self._searches.index(action) if own else None
        for asin, title, price in page.items:
            self._read(asin, title, price)
            if self._shown is not None:
                self._seen[asin].place = self._shown, page.number
        if page.kind == "item":
            seen = self._read(page.asin, page.title, page.price_tag)
            seen.opened = True
            told = self._named.items()
            seen.lacks = any(value not in page.options.get(name, ()) for name, value in told)
            seen.words |= {word for value in self._options(page) for word in _words(value)}
        elif page.kind == "features":
            seen = self._seen[page.asin]
            seen.read = True
            seen.words |= {*_words(" ".join(page.lines))}

    def choose(self) -> str:
        """What it does on the page that it saw last."""
        page = self._page
        assert page is not None
        if page.kind in ("search", "results"):
            return self._look(page)
        if page.kind != "item":
            return f"click[{PREV}]"
        seen = self._seen[page.asin]
        if self._may_fit(seen) and not seen.read and self._missing(seen):
            return "click[features]"
        if self._may_fit(seen) or (self._has_seen_all() and page.asin == self._best()):
            left = [value for value in self._options(page) if value not in page.chosen.values()]
            return f"click[{left[0]}]" if left else f"click[{BUY}]"
        return f"click[{PREV}]"

    def _look(self, page: Page) -> str:
        """On to a product that may fit, or to where the next one may be."""
        if self._has_seen_all():
            best = self._best()
            if best is None:
                return self.query
            search, number = self._seen[best].place or (0, 1)
            if page.kind == "search" or self._shown != search:
                return self._searches[search]
            if number == page.number:
                return f"click[{best.lower()}]"
            return f"click[{NEXT if number > page.number else PREV}]"
        if page.kind == "search" or self._shown != self._ahead:
            return self._searches[self._ahead]
        typed = [asin for asin, title, _ in page.items if self._type in _words(title)]
        for asin in typed:
            if self._may_fit(self._seen[asin]):
                return f"click[{asin.lower()}]"
        if typed:
            return f"click[{NEXT}]"
        self._ahead += 1
        return self._look(page)

    def _has_seen_all(self) -> bool:
        return self._ahead == len(self._searches)

    def _read(self, asin: str, title: str, price_tag: str) -> _Seen:
        seen = self._seen.setdefault(asin, _Seen())
        seen.words |= {*_words(title)}
        prices = [float(price) for price in re.findall(r"\d+\.?\d*", price_tag)]
        seen.cheap = self._bound is None or not prices or min(prices) <= self._bound
        return seen

    def _missing(self, seen: _Seen) -> int:
        """How many of the instruction's words were not read of it."""
        return len({*self._wanted} - seen.words)

    def _may_fit(self, seen: _Seen) -> bool:
        return seen.cheap and not seen.lacks and not (seen.read and self._missing(seen))

    def _best(self) -> str | None:
        """Of what its searches found, the product of which the least is wrong; of what was not opened all may be."""
        found = [asin for asin, seen in self._seen.items() if seen.place is not None]

        def wrong(asin: str) -> tuple[bool, int]:
            seen = self._seen[asin]
            return not seen.opened, self._missing(seen) + seen.lacks + (not seen.cheap)

        return min(found, key=wrong, default=None)

    def _options(self, page: Page) -> list[str]:
        """The values of a product's options that the instruction names, one of each option at most."""
        found = []
        for name, values in page.options.items():
            if name in self._named:
                found += [value for value in values if value == self._named[name]]
            else:
                found += sorted((value for value in values if self._names(value)), key=len)[-1:]
        return found

    def _names(self, value: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", self._text) is not None


def _pairs(text: str) -> dict[str, str]:
    """Names and values of `color: red, and size: large`."""
    return dict(part.split(": ", 1) for part in text.split(", and ") if ": " in part)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())

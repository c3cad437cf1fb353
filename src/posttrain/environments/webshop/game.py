"""The engine of WebShop's published rules.

    search[WORDS]                   from any page
    click[ASIN]                     a product of the page
    click[VALUE]                    an option's value
    click[description]              or features, reviews, attributes: a product's own pages
    click[back to search]           also click[< prev], click[next >]
    click[buy now]                  pays `reward.reward`, and ends the episode

The goal is reached where the reward is 1; with less the episode has failed. What cannot be clicked changes nothing. A search
that begins with `<q>` or the like, by which WebShop lists products by what no page shows, is one for words as others are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.environments import Environment, Outcome
from posttrain.environments.webshop.buyer import Buyer
from posttrain.environments.webshop.goals import Goal
from posttrain.environments.webshop.nouns import get_nouns
from posttrain.environments.webshop.pages import (
    BACK,
    BUY,
    NEXT,
    PREV,
    SUBPAGES,
    Page,
    first_text,
    item_page,
    results_page,
    search_page,
    sub_page,
    text_of,
)
from posttrain.environments.webshop.products import Product
from posttrain.environments.webshop.reward import reward
from posttrain.environments.webshop.shop import Shop, get_shop
from posttrain.tasks import Example

_ACTION = re.compile(r"(search|click)\[(.+)\]")


class WebShop:
    """One game at a time (`posttrain.environments.Environment`); a row says of which shop, and how its pages look."""

    def reset(self, row: Mapping[str, Any]) -> str:
        """Begin the episode of a row; `UserError` if the shop is not the one that the row was made in."""
        shop = row["shop"]
        found = get_shop(shop["products"], shop["size"], shop["seed"])
        if found.digest != shop["digest"]:
            raise UserError(
                f"{row['id']}: the products of {shop['products'] or 'the catalogue'} are others than those that the data "
                "was made of; run stage fetch again"
            )
        return self.begin(found, _from_row(row["wanted"]), row["pages"])

    def begin(self, shop: Shop, goal: Goal, pages: Mapping[str, Any]) -> str:
        """Begin an episode in a shop; pages: text, hits, per_page, attributes and tagger of the options."""
        self._shop, self._goal, self._pages = shop, goal, pages
        self._buyer = Buyer(goal.instruction)
        self._hits: list[Product] = []
        self._number = 0
        self._words = ""
        self._product: Product | None = None
        self._chosen: dict[str, str] = {}
        self._ended = False
        self._show(search_page(goal.instruction))
        return first_text(self._page, pages["text"])

    def step(self, action: str) -> Outcome:
        """Carry out an action."""
        if self._ended:
            raise RuntimeError("the episode has ended")
        action = action.strip().lower()
        match = _ACTION.fullmatch(action)
        if match is None or (match[1] == "search" and re.search(r"[][]", match[2])):
            return self._nothing("Not an action")
        if match[1] == "search":
            self._words, self._number = match[2], 1
            self._hits = [*self._shop.search(match[2], self._pages["hits"])]
            return self._results(action)
        if match[2] not in self._page.clickables():
            return self._nothing("Not on this page")
        return self._buy() if match[2] == BUY else self._click(match[2], action)

    def legal(self) -> list[str]:
        """What can be clicked, and a search for the instruction's own words."""
        return [*(f"click[{each}]" for each in self._page.clickables()), self._buyer.query]

    def expert(self) -> str | None:
        """What a buyer does who reads the pages and the instruction, also those to which others went before."""
        return None if self._ended else self._buyer.choose()

    def state_key(self) -> str:
        """The instruction, the page, and what is chosen."""
        page = self._page
        where = (page.kind, self._words, page.number, page.asin, [*page.chosen.items()])
        return repr((self._goal.instruction, page.price_tag, *where))

    def close(self) -> None:
        """Nothing is held."""

    def _nothing(self, why: str) -> Outcome:
        original = self._pages["text"] == "original"
        return Outcome(text_of(self._page, "original") if original else why, valid=False)

    def _click(self, what: str, action: str) -> Outcome:
        page = self._page
        if what == BACK:
            self._leave()
            self._words, self._number = "", 0
            return self._show(search_page(self._goal.instruction), action)
        if page.kind == "results" and what in (PREV, NEXT):
            self._number += 1 if what == NEXT else -1
            return self._results(action)
        if what == PREV and page.kind == "item":
            return self._results(action)
        if page.kind == "results":
            self._product = next(each for each in self._hits if each.asin.lower() == what)
        assert self._product is not None
        kind = next((each for each in SUBPAGES if each == what), None)
        if kind is not None:
            return self._show(sub_page(self._goal.instruction, self._product, kind), action)
        if page.kind == "item":
            names = [name for name, values in self._product.options.items() if what in values]
            self._chosen[names[-1]] = what
        return self._show(
            item_page(
                self._goal.instruction, self._product, self._chosen, self._pages["attributes"]
            ),
            action,
        )

    def _leave(self) -> None:
        """Forget the product and what was chosen."""
        self._product, self._chosen = None, {}

    def _results(self, action: str) -> Outcome:
        self._leave()
        per_page = self._pages["per_page"]
        return self._show(
            results_page(self._goal.instruction, self._hits, self._number, per_page), action
        )

    def _show(self, page: Page, action: str | None = None) -> Outcome:
        self._page = page
        self._buyer.see(page, action)
        return Outcome(text_of(page, self._pages["text"]))

    def _buy(self) -> Outcome:
        assert self._product is not None
        self._ended = True
        nouns = get_nouns(self._pages["tagger"])
        paid = reward(self._product, self._chosen.values(), self._goal, nouns)
        thanks = "Thank you for shopping with us! [SEP] Your score (min 0.0, max 1.0) [SEP] "
        text = f"{thanks}{paid}" if self._pages["text"] == "original" else "Bought"
        return Outcome(text, paid, "goal" if paid == 1 else "failed")


def to_row(goal: Goal) -> dict[str, Any]:
    """The goal as JSON."""
    return {
        "asin": goal.asin,
        "instruction": goal.instruction,
        "attributes": [*goal.attributes],
        "options": [each if isinstance(each, str) else [*each] for each in goal.options],
        "price_bound": goal.price_bound,
        "title": goal.title,
        "query": goal.query,
        "path": goal.path,
    }


def _from_row(row: Mapping[str, Any]) -> Goal:
    options: Sequence[Any] = row["options"]
    pairs = tuple(each if isinstance(each, str) else (each[0], each[1]) for each in options)
    return Goal(**{**row, "attributes": tuple(row["attributes"]), "options": pairs})


def open(params: Params, example: Example) -> Environment:
    """The engine; each row names its shop."""
    return WebShop()

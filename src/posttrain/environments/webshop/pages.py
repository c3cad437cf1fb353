"""Pages: what they hold, what can be clicked, and their text.

original    WebShop's text mode, with [SEP] between the pieces and the instruction on each page
short       the same facts in a few lines, without the instruction, which the prompt has, and without the buttons that
            all pages of a kind have; after a click on an option it says only what is chosen, which WebShop's text does not
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from posttrain.environments.webshop.options import Text
from posttrain.environments.webshop.products import Product

Kind = Literal["search", "results", "item", "description", "features", "reviews", "attributes"]

BACK, PREV, NEXT, BUY = "back to search", "< prev", "next >", "buy now"
SUBPAGES: tuple[Kind, ...] = ("description", "features", "reviews", "attributes")
_SEP = " [SEP] "
_BUTTONS = {BACK: "Back to Search", PREV: "< Prev", NEXT: "Next >", BUY: "Buy Now"}


@dataclass(frozen=True, slots=True)
class Page:
    """What a page shows, and no more than that.

    number, total: of a page of results, and how many there are on all. items: of a page of results, asin, title and price
    tag. asin: of the product that was clicked. options: values by name, of which `chosen` has those that were clicked.
    lines: of one of the product's own pages.
    """

    kind: Kind
    instruction: str
    number: int = 0
    total: int = 0
    items: tuple[tuple[str, str, str], ...] = ()
    asin: str = ""
    title: str = ""
    price_tag: str = ""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    buttons: tuple[str, ...] = ()

    def clickables(self) -> list[str]:
        """What can be clicked, in the order of WebShop's own list: buttons, products, values of options."""
        values = [value for each in self.options.values() for value in each]
        return [*dict.fromkeys([*self.buttons, *(item[0].lower() for item in self.items), *values])]


def search_page(instruction: str) -> Page:
    """The first page."""
    return Page("search", instruction)


def results_page(instruction: str, hits: list[Product], number: int, per_page: int) -> Page:
    """A page of results, counted from 1; one after the last is empty, as WebShop's is."""
    shown = hits[(number - 1) * per_page : number * per_page]
    return Page(
        "results",
        instruction,
        number=number,
        total=len(hits),
        items=tuple((each.asin, each.title, each.price_tag) for each in shown),
        buttons=(BACK, PREV, NEXT) if number > 1 else (BACK, NEXT),
    )


def item_page(
    instruction: str, product: Product, chosen: Mapping[str, str], attributes: bool
) -> Page:
    """A product's page."""
    own = SUBPAGES if attributes else SUBPAGES[:-1]
    return Page(
        "item",
        instruction,
        asin=product.asin,
        title=product.title,
        price_tag=product.price_tag,
        options=product.options,
        chosen=dict(chosen),
        buttons=(BACK, PREV, *own, BUY),
    )


def sub_page(instruction: str, product: Product, kind: Kind) -> Page:
    """One of the pages behind a product's page. There are no reviews, as in WebShop's own environment."""
    lines = {
        "description": (product.description,),
        "features": product.bullets,
        "attributes": (*product.attributes, product.kind, product.query, product.path),
    }.get(kind, ())
    return Page(kind, instruction, asin=product.asin, lines=lines, buttons=(BACK, PREV))


def text_of(page: Page, text: Text) -> str:
    """The page as it is read."""
    return _original(page) if text == "original" else _short(page)


def _original(page: Page) -> str:
    head = ["Instruction:", page.instruction]
    if page.kind == "search":
        return _SEP.join(["WebShop", *head, "Search"])
    head.append(_BUTTONS[BACK])
    if page.kind == "results":
        head.append(f"Page {page.number} (Total results: {page.total})")
        head += [_BUTTONS[each] for each in page.buttons[1:]]
        return _SEP.join([*head, *(part.strip() for item in page.items for part in item)])
    head.append(_BUTTONS[PREV])
    if page.kind != "item":
        return _SEP.join([*head, *(line.strip() for line in page.lines)])
    for name, values in page.options.items():
        head += [name, *values]
    head += [page.title, f"Price: {page.price_tag}", "Rating: N.A."]
    head += [_BUTTONS.get(each, each.capitalize()) for each in page.buttons[2:]]
    return _SEP.join(head)


def _short(page: Page) -> str:
    if page.kind == "search":
        return "Search page"
    if page.kind == "results":
        head = f"Results page {page.number} of {page.total} hits"
        return "\n".join(
            [head, *(f"{asin.lower()}: {title} {price}" for asin, title, price in page.items)]
        )
    if page.kind != "item":
        return f"{page.kind.capitalize()}: {'; '.join(page.lines) or 'none'}"
    if page.chosen:
        return f"Chosen: {', '.join(page.chosen.values())}"
    lines = [f"{page.asin.lower()}: {page.title} {page.price_tag}"]
    lines += [f"{name}: {', '.join(values)}" for name, values in page.options.items()]
    return "\n".join(lines)


def first_text(page: Page, text: Text) -> str:
    """The first observation of an episode."""
    return _original(page) if text == "original" else f"Goal: {page.instruction}\n{_short(page)}"

"""Products, from files in WebShop's form or from the generated catalogue, which has the same form.

    items_shuffle*.json     a list of products: asin, name, category, query, product_category, full_description,
                            small_description, pricing ("$1.00", "$1.00 to $2.00"), customization_options
    items_ins_v2*.json      by asin: attributes, and an instruction with its attributes
    items_human_ins.json    by asin: instructions that people wrote, with their attributes and options; may be missing

What is taken from them, and how, follows WebShop's `load_products`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError

NO_PRICE = 100.0  # dollars, of a product without one
FILES = ("items_shuffle*.json", "items_ins_v2*.json", "items_human_ins*.json")


@dataclass(frozen=True, slots=True)
class Product:
    """A product. price: in dollars, the one that is paid. price_tag: as pages show it; it may be a range.

    kind: its category. query: the search that found it when the products were gathered. path: its categories from wide to
    narrow, joined by ›.
    """

    asin: str
    title: str
    kind: str
    query: str
    path: str
    description: str
    bullets: tuple[str, ...]
    price: float
    price_tag: str
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]

    @property
    def indexed(self) -> str:
        """What the search engine knows of it; of the bullet points, the first."""
        options = ", and ".join(
            f"{name}: {', '.join(values)}" for name, values in self.options.items()
        )
        first = self.bullets[0] if self.bullets else ""
        return f"{self.title} {self.description} {first} {options}".lower()


@dataclass(frozen=True, slots=True)
class Files:
    """What the three files hold; `written` is None where there are no instructions by people."""

    items: list[Any]
    notes: dict[str, Any]
    written: dict[str, Any] | None


def read_folder(folder: Path, key: str) -> Files:
    """The files of a folder; `UserError`, which names `key`, if one is missing or not of this form."""
    if not folder.is_dir():
        raise UserError(f"{key}: {folder} is not a folder")
    items, notes, written = (_read(folder, name, key) for name in FILES)
    if not isinstance(items, list) or not isinstance(notes, dict):
        raise UserError(f"{key}: {folder} must have one file each of {FILES[0]} and {FILES[1]}")
    if written is not None and not isinstance(written, dict):
        raise UserError(f"{key}: {folder}/{FILES[2]}: not instructions by asin")
    return Files(items, notes, written)


def _read(folder: Path, pattern: str, key: str) -> Any:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        raise UserError(f"{key}: {folder} has {len(found)} files {pattern}; leave one there")
    if not found:
        return None
    try:
        return json.loads(found[0].read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{key}: {found[0]}: not JSON: {error}") from error


def read_products(files: Files, seed: int, key: str) -> dict[str, Product]:
    """The products by asin, in the file's order; a price within a range is drawn by the seed and the asin."""
    found: dict[str, Product] = {}
    for number, item in enumerate(files.items):
        try:
            asin = item["asin"]
            if asin == "nan" or len(asin) > 10 or asin in found:
                continue
            found[asin] = _product(item, files.notes.get(asin, {}), seed)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"{key}: product {number} is not of WebShop's form: {error!r}"
            ) from error
    return found


def _product(item: Mapping[str, Any], notes: Mapping[str, Any], seed: int) -> Product:
    bullets = item["small_description"] or ""
    price, tag = _price(item.get("pricing"), Random(f"{seed}/{item['asin']}"))
    return Product(
        asin=item["asin"],
        title=item["name"],
        kind=item["category"],
        query=item["query"].lower().strip(),
        path=item["product_category"],
        description=item["full_description"] or "",
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets,),
        price=price,
        price_tag=tag,
        options=_options(item["customization_options"] or {}),
        attributes=tuple(notes.get("attributes", ["DUMMY_ATTR"])),
    )


def _options(customization: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        name.lower(): tuple(each["value"].strip().replace("/", " | ").lower() for each in contents)
        for name, contents in customization.items()
        if contents is not None
    }


def _price(pricing: str | None, random: Random) -> tuple[float, str]:
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not prices:
        return NO_PRICE, f"${NO_PRICE}"
    if len(prices) == 1:
        return prices[0], f"${prices[0]}"
    return random.uniform(prices[0], prices[1]), f"${prices[0]} to ${prices[1]}"


def described(products: Iterable[Product]) -> bytes:
    """All that is known of the products, to tell one catalogue from another."""
    return "\n".join(repr(product) for product in products).encode()

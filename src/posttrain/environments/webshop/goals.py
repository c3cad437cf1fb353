"""Goals: what is to be bought, in the words of an instruction.

Where there are instructions that people wrote, each is a goal; else a product's own instruction is one with each
combination of its options. Words, order and numbers are those of WebShop's `get_goals`, but the price bound, which its
process draws anew each time, is drawn by the seed and the goal's place among all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product as combinations
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.environments.webshop.products import Files, Product

BOUNDS = [10.0 * tens for tens in range(1, 100)]  # dollars
NO_BOUND = 1_000_000.0
ORDER = 233  # seed of the order of goals, by which WebShop's own splits are cut


@dataclass(frozen=True, slots=True)
class Goal:
    """instruction: as pages show it. options: values, or pairs of name and value where people wrote none.

    title, query, path: of the product that the goal was made of.
    """

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...]
    price_bound: float
    title: str
    query: str
    path: str


def read_goals(files: Files, products: Mapping[str, Product], seed: int, key: str) -> list[Goal]:
    """All goals, in the products' order; `UserError`, which names `key`, if an instruction is not of WebShop's form."""
    told = _told(files, products) if files.written is None else _written(files, products)
    goals = []
    try:
        for number, (product, instruction, attributes, options) in enumerate(told):
            bound, words = _bound(product.price, Random(f"{seed}/{number}"))
            goals.append(
                Goal(
                    product.asin,
                    instruction + words,
                    tuple(attributes),
                    options,
                    bound,
                    product.title,
                    product.query,
                    product.path,
                )
            )
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{key}: the instruction of goal {len(goals)} is not of WebShop's form: {error!r}"
        ) from error
    return goals


def published_order(goals: list[Goal]) -> list[Goal]:
    """The goals in the order by which WebShop numbers them."""
    shuffled = [*goals]
    Random(ORDER).shuffle(shuffled)
    return shuffled


_Told = tuple[Product, str, list[str], tuple[str | tuple[str, str], ...]]


def _written(files: Files, products: Mapping[str, Product]) -> Iterator[_Told]:
    assert files.written is not None
    for asin, product in products.items():
        for each in files.written.get(asin, []):
            if each["instruction_attributes"]:
                instruction = each["instruction"].strip(".")
                options: Any = each["instruction_options"]
                if isinstance(options, dict):
                    options = options.items()
                yield product, instruction, each["instruction_attributes"], tuple(options)


def _told(files: Files, products: Mapping[str, Product]) -> Iterator[_Told]:
    for asin, product in products.items():
        notes = files.notes.get(asin, {})
        if not notes.get("instruction"):
            continue
        names = sorted(product.options)
        for values in combinations(*(product.options[name] for name in names)):
            pairs = tuple(zip(names, values, strict=True))
            words = ", and ".join(f"{name}: {value}" for name, value in pairs)
            instruction = notes["instruction"] + (f" with {words}" if words else "")
            yield product, instruction, notes["instruction_attributes"], pairs


def _bound(price: float, random: Random) -> tuple[float, str]:
    """The larger of two of the four bounds next above the price, and the words for it."""
    above = [bound for bound in BOUNDS if bound > price][:4]
    if len(above) < 2:
        return NO_BOUND, ""
    bound = max(random.sample(above, 2))
    return bound, f", and price lower than {bound:.2f} dollars"

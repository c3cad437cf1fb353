"""A generated catalogue, in the form of WebShop's files.

Products come in families of three, of the same type and with the same two attributes, which differ in a third attribute, in
the options that they have and in price. The search engine does not know all attributes of a product, as in WebShop, where it
knows the first bullet point alone. So the first hit need not be what was asked for, and a product must be looked at. Titles
have so many nouns that one in common, of an attribute, does not make another type of product the wanted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from posttrain.environments.webshop.products import Files

_FAMILY = 3


@dataclass(frozen=True, slots=True)
class _Department:
    """types: of product, and a second name of each. options: names and values. price: least and largest base price."""

    types: dict[str, str]
    options: dict[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    price: tuple[int, int]


_COLOURS = ("black", "white", "red", "blue", "green", "grey", "pink", "yellow")
_DEPARTMENTS = {
    "fashion": _Department(
        {
            "shirt": "tee",
            "sweater": "pullover",
            "jacket": "coat",
            "pants": "trousers",
            "skirt": "kilt",
        },
        {"color": _COLOURS, "size": ("small", "medium", "large", "x-large", "xx-large")},
        ("slim fit", "long sleeve", "machine wash", "quick drying", "pure cotton", "elastic waist"),
        (8, 70),
    ),
    "shoes": _Department(
        {"sneakers": "trainers", "sandals": "flats", "slippers": "mules", "boots": "booties"},
        {"color": _COLOURS, "size": ("6", "7", "8", "9", "10", "11")},
        ("non slip", "soft foam", "rubber sole", "high arch", "ankle strap", "open toe"),
        (12, 90),
    ),
    "furniture": _Department(
        {
            "chair": "seat",
            "sofa": "couch",
            "ottoman": "stool",
            "bookcase": "shelf",
            "dresser": "drawers",
        },
        {"color": _COLOURS, "style": ("modern", "vintage", "classic", "industrial")},
        ("solid wood", "easy assembly", "space saving", "metal legs", "easy clean", "heavy duty"),
        (30, 400),
    ),
    "electronics": _Department(
        {"headphones": "headset", "speaker": "soundbar", "keyboard": "keypad", "webcam": "camera"},
        {"color": _COLOURS, "package": ("1 pack", "2 pack", "4 pack")},
        ("noise free", "fast charging", "water proof", "hands free", "high speed", "low power"),
        (10, 200),
    ),
    "beauty": _Department(
        {"shampoo": "wash", "comb": "brush", "lotion": "cream", "sunscreen": "sunblock"},
        {"scent": ("rose", "lemon", "mint", "vanilla", "plain"), "size": ("3 oz", "6 oz", "12 oz")},
        ("cruelty free", "sulfate free", "dry skin", "paraben free", "long lasting", "all natural"),
        (5, 40),
    ),
    "grocery": _Department(
        {
            "crackers": "biscuits",
            "granola": "cereal",
            "coffee": "roast",
            "tea": "leaves",
            "juice": "drink",
        },
        {"flavor": ("apple", "cocoa", "ginger", "honey", "plain"), "count": ("6", "12", "24")},
        ("gluten free", "non gmo", "low sugar", "plant based", "high protein", "dairy free"),
        (4, 35),
    ),
}
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def generate(seed: int, size: int) -> Files:
    """A catalogue of `size` products, with families of each type in turn, in random order."""
    random = Random(f"catalogue/{seed}")
    types = [(name, kind) for name, each in _DEPARTMENTS.items() for kind in each.types]
    random.shuffle(types)
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    while len(made) < size:
        for name, kind in types:
            made += _family(random, name, kind)
    made = made[:size]
    random.shuffle(made)
    asins = [f"B{number:0{len(str(size))}}" for number in range(size)]
    items = [{"asin": asin, **item} for asin, (item, _) in zip(asins, made, strict=True)]
    notes = {asin: notes for asin, (_, notes) in zip(asins, made, strict=True)}
    return Files(items, notes, None)


def _family(random: Random, name: str, kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    department = _DEPARTMENTS[name]
    titled, shared, *others = random.sample(department.attributes, 2 + _FAMILY)
    base = random.randint(*department.price)
    found = []
    for other in others:
        attributes = [titled, shared, other]
        wanted = random.sample(attributes, 2)
        bullets = [shared, other]
        random.shuffle(bullets)
        brand, model = ("".join(random.choices(_SYLLABLES, k=2)) for _ in range(2))
        options = {}
        for option, values in department.options.items():
            there = random.sample(values, min(3, len(values) - 1))
            options[option] = [{"value": value} for value in values if value in there]
        item = {
            "name": f"{brand} {model} {titled} {kind} {department.types[kind]}",
            "category": name,
            "query": kind,
            "product_category": f"{name} › {kind}",
            "full_description": f"{kind} by {brand}.",
            "small_description": bullets,
            "pricing": f"${base * random.uniform(0.6, 1.6):.2f}",
            "customization_options": options,
        }
        instruction = f"find me {', '.join(wanted)} {kind}"
        notes = {
            "attributes": sorted(attributes),
            "instruction": instruction,
            "instruction_attributes": wanted,
        }
        found.append((item, notes))
    return found

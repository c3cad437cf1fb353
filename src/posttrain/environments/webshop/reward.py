"""The reward of a purchase, as WebShop's paper and code have it:

    R = r_type * (attributes that it has + options that were chosen + [price <= bound]) / (attributes + options + 1)

An attribute counts if one of the product's is alike, or if it occurs in the title, the bullet points or the description; an
option if a chosen value is alike, by its colour where it has one. Alike are texts whose `token_set_ratio`, rounded, is above
85. r_type depends on the share of the nouns of the goal's title that are in the product's:

    0       none is
    0.1     less than 0.1
    0.5     at most 0.2, and neither the query nor two categories are the same
    1       else; so, too, if the goal's title has no noun
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from posttrain.core.errors import UserError
from posttrain.environments.webshop.goals import Goal
from posttrain.environments.webshop.nouns import MISSING, Nouns
from posttrain.environments.webshop.products import Product

ALIKE = 85

# WebShop's, in its order: of several in a text the first of these is its colour.
_WORDS = """alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy
camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream
crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo
ivory ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor
mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand
sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
wheat white wine yellow"""
_COLOURS = _WORDS.split()
_NOT_ASCII = dict.fromkeys(range(128, 256))


def reward(product: Product, chosen: Iterable[str], goal: Goal, nouns: Nouns) -> float:
    """The reward of buying the product with these values of its options, in [0, 1]."""
    hits = sum(_has(product, attribute) for attribute in goal.attributes)
    hits += option_hits([*chosen], goal.options)
    hits += product.price <= goal.price_bound
    return type_factor(product, goal, nouns) * hits / (len(goal.attributes) + len(goal.options) + 1)


def type_factor(product: Product, goal: Goal, nouns: Nouns) -> float:
    """r_type."""
    wanted, has = nouns(goal.title), {*nouns(product.title)}
    share = len(has & {*wanted}) / len(wanted) if wanted else 0.2
    if share == 0:
        return 0.0
    if share < 0.1:
        return 0.1
    categories = [{part.strip() for part in each.path.split("›")} for each in (product, goal)]
    same = product.query == goal.query or len(categories[0] & categories[1]) >= 2
    return 1.0 if same or share > 0.2 else 0.5


def option_hits(chosen: Sequence[str], wanted: Iterable[str | tuple[str, str]]) -> int:
    """How many of the wanted options are alike to a chosen value."""
    values = [_colour(value) for value in chosen]
    return sum(any(alike(value, _colour(each)) for value in values) for each in wanted)


def alike(one: str, other: str) -> bool:
    """Whether the texts' `token_set_ratio` is above 85."""
    return token_set_ratio(one, other) > ALIKE


def token_set_ratio(one: str, other: str) -> int:
    """As the package `thefuzz` has it: of ASCII letters and digits in lower case, rounded."""
    try:
        from rapidfuzz import fuzz, utils
    except ImportError as error:
        raise UserError(MISSING.format(error.name)) from error
    texts = [utils.default_process(text.translate(_NOT_ASCII)) for text in (one, other)]
    ratio: float = fuzz.token_set_ratio(*texts)
    return round(ratio)


def _has(product: Product, attribute: str) -> bool:
    if any(alike(own, attribute) for own in product.attributes):
        return True
    texts = (product.title, " ".join(product.bullets), product.description)
    return any(attribute in text.lower() for text in texts)


def _colour(option: str | tuple[str, str]) -> str:
    """The colour of a text. WebShop takes that of a name with its value only if the value is nothing but a colour."""
    return next(
        (colour for colour in _COLOURS if colour in option),
        " ".join(option) if isinstance(option, tuple) else option,
    )

"""The options of this environment in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.core.schema import Positive, Section

Text = Literal["short", "original"]


class Options(Section):
    """products: a folder with files of WebShop's (`products.read_folder`); None to generate `size` products.

    text: of observations; original has WebShop's own, with the instruction on each page. hits: products that a search
    finds, at most, of which a page shows `per_page`. attributes: whether a product has a page of its attributes.
    tagger: `textblob`, or the name of a spaCy model that is installed (`nouns.py`). test_goals, val_goals: of the goals of
    `products` the first so many are for testing, the next so many for validation, and the rest for training. turns: the most
    actions of an episode; None for twice the expert's and two.
    """

    products: str | None = None
    size: Annotated[int, Field(ge=30)] = 150
    text: Text = "short"
    hits: Positive = 50
    per_page: Positive = 10
    attributes: bool = False
    tagger: Annotated[str, Field(min_length=1)] = "textblob"
    test_goals: Positive = 500
    val_goals: Positive = 1000
    turns: Positive | None = None

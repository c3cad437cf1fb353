"""The options of this environment in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from posttrain.core.schema import Positive, Section

Depth = Annotated[int, Field(ge=1, le=6)]


class Options(Section):
    """depth: crafting steps from base items to the goal, fewest and most; as many games of each, if they are generated.

    distractors: recipes on the page that the goal does not need, at most. turns: the most actions of an episode; None for
    twice the expert's and two. recipes: a folder of recipes in the form of a Minecraft data pack; None to generate them.
    """

    depth: Annotated[list[Depth], Field(min_length=2, max_length=2, default_factory=lambda: [1, 4])]
    distractors: Annotated[int, Field(ge=0, le=20)] = 3
    turns: Positive | None = None
    recipes: str | None = None

    @model_validator(mode="after")
    def _depth_is_a_range(self) -> Options:
        if self.depth[0] > self.depth[1]:
            raise ValueError("depth must be [fewest, most]")
        return self

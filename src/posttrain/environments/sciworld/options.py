"""The options of this environment in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.core.schema import Positive, Section

TASKS = ["find-non-living-thing", "find-living-thing", "find-plant", "find-animal"]
# of the package's thirty tasks, those that AgentGym leaves out: growing plants, inclined planes, genetics
DROPPED = (
    "grow-plant",
    "grow-fruit",
    "inclined-plane-determine-angle",
    "inclined-plane-friction-named-surfaces",
    "inclined-plane-friction-unnamed-surfaces",
    "mendelian-genetics-known-plant",
    "mendelian-genetics-unknown-plant",
)


class Options(Section):
    """tasks: names of the package's tasks, with equally many games of each while it has so many.

    text: of observations, as the package writes them, or a shorter one of the same facts. turns: the most actions of an
    episode; None for twice the expert's and two.
    """

    tasks: Annotated[list[str], Field(min_length=1, default_factory=lambda: [*TASKS])]
    text: Literal["short", "original"] = "short"
    turns: Positive | None = None

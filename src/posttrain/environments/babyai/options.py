"""The options of this environment in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from posttrain.core.schema import Positive, Section

LEVELS = ["GoToRedBallGrey", "GoToLocal", "PickupLoc", "OpenDoor", "PutNextLocalS5N3"]


class Options(Section):
    """levels: names of minigrid's levels without `BabyAI-` and version, with equally many games of each.

    turns: the most actions of an episode; None for twice the expert's and two.
    """

    levels: Annotated[list[str], Field(min_length=1, default_factory=lambda: [*LEVELS])]
    turns: Positive | None = None

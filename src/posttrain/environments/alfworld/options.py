"""The options of this environment in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.core.schema import Positive, Section
from posttrain.environments.alfworld.problem import KINDS

Kind = Literal[
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
]


class Options(Section):
    """kinds: types of task, with equally many generated games of each.

    receptacles, distractors: of a generated game, the receptacles in the room, and the objects that the task is not about.
    turns: the most actions of an episode; None for twice the expert's and two. expert: search (for what it has not seen yet)
    | planner (which knows where all things are). games: a folder of alfworld's game files; None to generate games.
    """

    kinds: Annotated[list[Kind], Field(min_length=1, default_factory=lambda: [*KINDS])]
    receptacles: Annotated[int, Field(ge=5, le=11)] = 8
    distractors: Annotated[int, Field(ge=0, le=20)] = 6
    turns: Positive | None = None
    expert: Literal["search", "planner"] = "search"
    games: str | None = None

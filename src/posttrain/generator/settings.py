"""Settings that the generator's methods share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.core.schema import (
    AtLeastTwo,
    NonNegative,
    Parts,
    Positive,
    Rate,
    Section,
    Temperature,
)
from posttrain.core.settings import Optimization


class OfParts(Section):
    """parts: of a mixture, those whose questions and episodes are trained on; validation is on all."""

    parts: Parts = "all"


class RL(OfParts, Optimization):
    """steps: rollout batches, or batches of preference pairs."""

    steps: Positive


class Curriculum(Section):
    """Groups of questions that are asked from later on (`generator.curriculum`).

    by: the field of an example that names its group, such as part, kind or level; null: no curriculum. order: the groups
    from the first to the last; null: sorted. reward: the mean reward of the newest group at which the next opens; null: they
    open in as many equal parts of the training.
    """

    by: str | None = None
    order: Annotated[list[str | int], Field(min_length=1)] | None = None
    reward: Rate | None = None


class OnPolicy(RL):
    """Settings of the methods that sample while they train.

    A step samples `samples` completions of each of `prompts_per_step` questions, or plays as many episodes of each, and
    passes over them `inner_epochs` times. prompts: all questions, or those with both right and wrong samples (mixed).
    turn_caps: the most turns of an episode in each of as many equal parts of the training; null: those of its row.
    """

    prompts: Literal["all", "mixed"]
    prompts_per_step: Positive
    samples: AtLeastTwo
    inner_epochs: Positive
    temperature: Temperature
    kl_coef: NonNegative
    clip_range: Rate
    turn_caps: Annotated[list[Positive], Field(min_length=1)] | None = None
    curriculum: Curriculum = Curriculum()

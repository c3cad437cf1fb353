"""Settings that the generator's RL methods share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.core.schema import AtLeastTwo, NonNegative, Positive, Rate, Temperature
from posttrain.core.settings import Optimization


class RL(Optimization):
    """steps: rollout batches, or batches of preference pairs."""

    steps: Positive


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

"""Settings that the generator's RL methods share."""

from __future__ import annotations

from typing import Literal

from posttrain.core.schema import AtLeastTwo, NonNegative, Positive, Temperature
from posttrain.core.settings import Optimization


class RL(Optimization):
    """steps: rollout batches, or batches of preference pairs."""

    steps: Positive


class OnPolicy(RL):
    """Settings of the methods that sample while they train.

    A step samples `samples` completions of each of `prompts_per_step` questions, and passes over them `inner_epochs`
    times. prompts: all questions, or those with both right and wrong samples (mixed).
    """

    prompts: Literal["all", "mixed"]
    prompts_per_step: Positive
    samples: AtLeastTwo
    inner_epochs: Positive
    temperature: Temperature
    kl_coef: NonNegative

"""Settings that the selector's RL methods share."""

from __future__ import annotations

from pydantic import model_validator

from posttrain.core.schema import NonNegative, Positive
from posttrain.core.settings import Optimization


class RL(Optimization):
    """`steps` rollout batches of `prompts_per_step` questions, with `inner_epochs` passes of `minibatches` optimizer steps
    over each.
    """

    steps: Positive
    prompts_per_step: Positive
    inner_epochs: Positive
    minibatches: Positive

    @model_validator(mode="after")
    def _minibatches_have_prompts(self) -> RL:
        if self.minibatches > self.prompts_per_step:
            raise ValueError("minibatches must not exceed prompts_per_step")
        return self


class KLPenalised(RL):
    """A penalty of kl_coef * KL(policy || SFT) and a bonus of entropy_coef * H(policy)."""

    kl_coef: NonNegative
    entropy_coef: NonNegative

"""Exact policy gradient: as the rewards of all K candidates are known, nothing needs to be sampled.

    objective = sum_k policy(k) r_k - kl_coef KL(policy || SFT) + entropy_coef H

PPO, GRPO and RLOO approach it with more and more samples; the difference is their variance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.loop import Stats
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    expected_reward,
    kl_divergence,
    log_softmax,
)
from posttrain.selector.settings import KLPenalised


class Settings(KLPenalised):
    """Only those of `KLPenalised`."""


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Nothing is sampled."""
    return batch


def loss(output: SelectorOutput, batch: Batch, settings: Settings) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    objective = expected_reward(log_policy, batch["rewards"]).mean()
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = (
        objective - settings.kl_coef * kl + settings.entropy_coef * entropy(log_policy).mean()
    )
    return -objective, describe(log_policy, batch)

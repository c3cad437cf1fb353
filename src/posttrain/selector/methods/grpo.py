"""GRPO (Shao et al. 2024): a clipped step on sampled actions, relative to their own group.

A_i = (r_i - mean_j r_j) / s over the samples of one question;   ratio = policy(a) / old_policy(a)
objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - kl_coef KL(policy || SFT) + entropy_coef H

s is the deviation of the question's own rewards (`scale_rewards: group`, the paper), that of all rewards of the batch
(batch), or 1 (none, Liu et al. 2025). Rewards deviate by less than 1, so a division makes `kl_coef` weaker against them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from posttrain.core.loop import Stats
from posttrain.core.schema import AtLeastTwo, Rate
from posttrain.rollouts.groups import all_equal
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    kl_divergence,
    log_softmax,
    sample,
)
from posttrain.selector.settings import KLPenalised


class Settings(KLPenalised):
    samples: AtLeastTwo
    clip_range: Rate
    scale_rewards: Literal["group", "batch", "none"] = "group"


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Sample actions from the current policy; the advantage is the reward above its group's mean, scaled.

    It is 0 in a group of equal rewards, whose share is on the curve `equal_rewards`.
    """
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, settings.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    advantages = returns - returns.mean(dim=1, keepdim=True)
    if settings.scale_rewards == "group":
        advantages = advantages / (returns.std(dim=1, keepdim=True) + 1e-4)
    elif settings.scale_rewards == "batch":
        advantages = advantages / (returns.std() + 1e-4)
    advantages = advantages.masked_fill(all_equal(returns)[:, None], 0.0)
    return {
        **batch,
        "actions": actions,
        "old_log_policy": old_log_policy,
        "advantages": advantages,
        "returns": returns,
    }


def loss(output: SelectorOutput, batch: Batch, settings: Settings) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    actions, advantages = batch["actions"], batch["advantages"]
    ratio = (log_policy.gather(1, actions) - batch["old_log_policy"].gather(1, actions)).exp()
    clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages).mean()
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = (
        objective - settings.kl_coef * kl + settings.entropy_coef * entropy(log_policy).mean()
    )
    return -objective, {
        **describe(log_policy, batch),
        "clip_fraction": float((clipped != ratio).float().mean()),
        "equal_rewards": float(all_equal(batch["returns"]).float().mean()),
    }

"""RLOO (Ahmadian et al. 2024): REINFORCE with the mean reward of the other samples as baseline.

A_i = r_i - mean_{j != i} r_j over the samples of one question;   ratio = policy(a) / old_policy(a)
objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - kl_coef KL(policy || SFT) + entropy_coef H

In the first optimizer step on a rollout batch the ratio is 1, and the gradient that of REINFORCE, A grad log policy(a).
"""

from __future__ import annotations

from collections.abc import Callable

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


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Sample actions from the current policy; the advantage is the reward minus the mean of the others."""
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, settings.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    others = (returns.sum(dim=1, keepdim=True) - returns) / (settings.samples - 1)
    advantages = (returns - others).masked_fill(all_equal(returns)[:, None], 0.0)
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

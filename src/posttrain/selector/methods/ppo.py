"""PPO (Schulman et al. 2017): a clipped step on sampled actions, with a learned value as baseline.

    A = r - V(pool), normalised over the batch;   ratio = policy(a) / old_policy(a)
    objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - kl_coef KL(policy || SFT) + entropy_coef H

One action is one episode of one step, so there is no discount and no GAE. V is the critic of `posttrain.rollouts.critic`,
on the pool's mean hidden state and on how sure the policy is; it is fitted to the steps before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.loop import Stats
from posttrain.core.schema import Positive, Rate
from posttrain.rollouts.groups import whiten
from posttrain.selector.model import SelectorOutput, ValuedOutput
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
    samples: Positive
    clip_range: Rate
    target_kl: Rate | None


def rollout(
    act: Callable[[], ValuedOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Sample actions from the current policy; the advantage is the reward minus the value, normalised over the batch."""
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, settings.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    advantages = whiten(returns - old.values[:, None])
    return {
        **batch,
        "actions": actions,
        "old_log_policy": old_log_policy,
        "values": old.values,
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
    moved = float(kl_divergence(batch["old_log_policy"], log_policy.detach()).mean())
    return -objective, {
        **describe(log_policy, batch),
        "clip_fraction": float((clipped != ratio).float().mean()),
        "old_kl": moved,
        "stop": float(settings.target_kl is not None and moved > settings.target_kl),
    }

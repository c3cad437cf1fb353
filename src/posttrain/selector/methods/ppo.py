"""PPO (Schulman et al. 2017): a clipped step on sampled actions, with a learned value as baseline.

    A = r - V(pool), normalised over the batch;   ratio = policy(a) / old_policy(a)
    objective = min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - c_v value_loss - kl_coef KL(policy || SFT) + entropy_coef H

One action is one episode of one step, so there is no discount and no GAE.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.params import PPO
from posttrain.core.training import Stats
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import (
    Batch,
    describe,
    entropy,
    kl_divergence,
    log_softmax,
    sample,
)


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, config: PPO, generator: torch.Generator
) -> Batch:
    """Draw actions from the current policy; the advantage is the reward above the value."""
    old = act()
    old_log_policy = log_softmax(old.logits)
    actions = sample(old_log_policy, config.samples, generator)
    returns = batch["rewards"].gather(1, actions)
    advantages = returns - old.values[:, None]
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    return {
        **batch,
        "actions": actions,
        "old_log_policy": old_log_policy,
        "old_values": old.values,
        "advantages": advantages,
        "returns": returns,
    }


def loss(output: SelectorOutput, batch: Batch, config: PPO) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    actions, advantages = batch["actions"], batch["advantages"]
    ratio = (log_policy.gather(1, actions) - batch["old_log_policy"].gather(1, actions)).exp()
    clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages).mean()
    value_loss = _value_loss(output.values, batch, config.value_clip_range)
    kl = kl_divergence(log_policy, batch["reference"]).mean()
    objective = objective - config.kl_coef * kl + config.entropy_coef * entropy(log_policy).mean()
    moved = float(kl_divergence(batch["old_log_policy"], log_policy.detach()).mean())
    return -objective + config.value_coef * value_loss, {
        **describe(log_policy, batch),
        "clip_fraction": float((clipped != ratio).float().mean()),
        "value_loss": float(value_loss.detach()),
        "old_kl": moved,
        "stop": float(config.target_kl is not None and moved > config.target_kl),
    }


def _value_loss(values: Tensor, batch: Batch, clip_range: float) -> Tensor:
    """Half squared error; the larger of the plain one and that of a value kept near its old one."""
    old = batch["old_values"]
    near = old + (values - old).clamp(-clip_range, clip_range)
    error = (values[:, None] - batch["returns"]).square()
    near_error = (near[:, None] - batch["returns"]).square()
    return 0.5 * torch.maximum(error, near_error).mean()

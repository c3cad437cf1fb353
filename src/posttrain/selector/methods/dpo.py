"""DPO (Rafailov et al. 2023) on pairs of candidates of one pool; the one with the higher reward is preferred.

    objective = log sigmoid( beta [ log policy(w)/SFT(w) - log policy(l)/SFT(l) ] ),        r_w > r_l

The pairs come from the pool, so nothing is sampled from the policy; beta takes the place of the KL penalty.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from posttrain.core.loop import Stats
from posttrain.core.schema import Positive, Rate
from posttrain.rollouts.groups import ROUNDING
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import Batch, describe, log_softmax
from posttrain.selector.settings import RL


class Settings(RL):
    samples: Positive
    beta: Rate


def rollout(
    act: Callable[[], SelectorOutput], batch: Batch, settings: Settings, generator: torch.Generator
) -> Batch:
    """Sample pairs with replacement among those whose rewards differ; a pool without any has weight 0."""
    rewards = batch["rewards"]
    count = rewards.shape[1]
    better = rewards[:, :, None] - rewards[:, None, :] > ROUNDING
    better = better.flatten(1).float()  # (B, K * K)
    some = better.any(dim=1, keepdim=True)
    pairs = torch.multinomial(
        torch.where(some, better, torch.ones_like(better)),
        settings.samples,
        replacement=True,
        generator=generator,
    )
    return {**batch, "chosen": pairs // count, "rejected": pairs % count, "weights": some.float()}


def loss(output: SelectorOutput, batch: Batch, settings: Settings) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    chosen, rejected = batch["chosen"], batch["rejected"]
    gain = log_policy - batch["reference"]
    margin = settings.beta * (gain.gather(1, chosen) - gain.gather(1, rejected))
    objective = (batch["weights"] * logsigmoid(margin)).mean()
    return -objective, {
        **describe(log_policy, batch),
        "margin": float(margin.detach().mean()),
        "pair_accuracy": float((margin > 0).float().mean()),
    }

"""Supervised fine-tuning: cross-entropy on the set of best candidates, which share the probability.

loss = -log sum_{k in best} policy(k),        best = {k : reward_k = max_j reward_j}
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.loop import Stats
from posttrain.core.settings import SFT
from posttrain.rollouts.groups import best
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import Batch, describe, log_softmax


class Settings(SFT):
    """Those of `SFT`."""


def rollout(
    act: Callable[[], SelectorOutput],
    batch: Batch,
    settings: Settings,
    generator: torch.Generator,
) -> Batch:
    """Nothing is sampled."""
    return batch


def loss(output: SelectorOutput, batch: Batch, settings: Settings) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    wanted = best(batch["rewards"])
    objective = log_policy.masked_fill(~wanted, -torch.inf).logsumexp(dim=-1).mean()
    return -objective, describe(log_policy, batch)

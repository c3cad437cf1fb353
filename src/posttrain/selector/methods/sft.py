"""Supervised fine-tuning: cross-entropy on the set of best candidates, which share the probability.

loss = -log sum_{k in best} policy(k),        best = {k : reward_k = max_j reward_j}
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.params import SelectorSFT
from posttrain.core.training import Stats
from posttrain.selector.model import SelectorOutput
from posttrain.selector.policy import Batch, describe, log_softmax


def rollout(
    act: Callable[[], SelectorOutput],
    batch: Batch,
    config: SelectorSFT,
    generator: torch.Generator,
) -> Batch:
    """Nothing is sampled."""
    return batch


def loss(output: SelectorOutput, batch: Batch, config: SelectorSFT) -> tuple[Tensor, Stats]:
    log_policy = log_softmax(output.logits)
    best = batch["rewards"] >= batch["rewards"].amax(dim=-1, keepdim=True)
    objective = log_policy.masked_fill(~best, -torch.inf).logsumexp(dim=-1).mean()
    return -objective, describe(log_policy, batch)

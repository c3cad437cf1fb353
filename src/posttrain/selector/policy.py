"""Quantities of a categorical policy over K candidates, exact because K is small.

policy(k) = softmax(logits)_k        KL(p || q) = sum_k p_k (log p_k - log q_k)        H(p) = -sum_k p_k log p_k
"""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.core.loop import Stats

# Tensors of B rows: rewards (B, K), the reference log-policy (B, K), and those that a rollout adds.
Batch = dict[str, Tensor]


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities of the candidates, (B, K) float32."""
    return torch.log_softmax(logits.float(), dim=-1)


def sample(log_policy: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` actions per row, sampled with replacement: (B, K) to (B, count) int64."""
    return torch.multinomial(log_policy.exp(), count, replacement=True, generator=generator)


def entropy(log_policy: Tensor) -> Tensor:
    """H(policy), (B, K) to (B,), in nats."""
    return -(log_policy.exp() * log_policy).sum(dim=-1)


def kl_divergence(log_policy: Tensor, log_other: Tensor) -> Tensor:
    """KL(policy || other), (B, K) and (B, K) to (B,), in nats."""
    return (log_policy.exp() * (log_policy - log_other)).sum(dim=-1)


def expected_reward(log_policy: Tensor, rewards: Tensor) -> Tensor:
    """Expected reward under the policy, (B, K) and (B, K) to (B,)."""
    return (log_policy.exp() * rewards).sum(dim=-1)


def describe(log_policy: Tensor, batch: Batch) -> Stats:
    """Statistics of the policy on a batch, logged by every method."""
    log_policy = log_policy.detach()
    chosen = log_policy.argmax(dim=-1, keepdim=True)
    return {
        "reward": float(expected_reward(log_policy, batch["rewards"]).mean()),
        "greedy_reward": float(batch["rewards"].gather(1, chosen).mean()),
        "entropy": float(entropy(log_policy).mean()),
        "kl": float(kl_divergence(log_policy, batch["reference"]).mean()),
    }

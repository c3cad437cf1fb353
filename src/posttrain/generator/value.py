"""The value network of token-level PPO, with its targets, its loss and a measure of its quality.

    delta_t = r_t + gamma V(s_t+1) - V(s_t)        A_t = sum_l (gamma lambda)^l delta_t+l        return_t = A_t + V(s_t)

(generalised advantage estimation, Schulman et al. 2016). t counts the policy's own tokens only, and V is 0 after the
last, even if the episode was cut off there.

    loss = 1/2 mean max((V - return)^2, (clip(V, V_old - eps, V_old + eps) - return)^2)

Left out: bootstrapping the value of an episode that was cut off, normalised returns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posttrain.rollouts.groups import all_equal


class ValueNetwork(nn.Module):
    """Expected return of a state: two-layer MLP d -> d -> 1 on the policy's last hidden state, in float32.

    It starts at 0 everywhere, so that it adds no noise to the advantages before it has learned anything. Hidden states
    are normalised first, as their scale differs by orders of magnitude between models.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size, elementwise_affine=False)
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(..., d) to (...)."""
        inner = torch.tanh(self.inner(self.norm(states.float())))
        values: Tensor = self.outer(inner).squeeze(-1)
        return values


def gae(
    rewards: Sequence[float], values: Sequence[float], gamma: float, gae_lambda: float
) -> list[float]:
    """Advantages of one episode's T actions, from the reward after each and the value before each."""
    advantages = [0.0] * len(rewards)
    ahead, value_ahead = 0.0, 0.0
    for t, (reward, value) in reversed(list(enumerate(zip(rewards, values, strict=True)))):
        delta = reward + gamma * value_ahead - value
        ahead = delta + gamma * gae_lambda * ahead
        advantages[t], value_ahead = ahead, value
    return advantages


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """Half the mean of squared errors, each the larger of the value's own and that of the value clipped near its old one."""
    near = old_values + (values - old_values).clamp(-clip_range, clip_range)
    error, near_error = (values - returns).square(), (near - returns).square()
    return 0.5 * torch.maximum(error, near_error).mean()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant.

    It is 0 too where all returns are equal, and there is nothing to explain.
    """
    if bool(all_equal(returns)):
        return 0.0
    spread = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / spread

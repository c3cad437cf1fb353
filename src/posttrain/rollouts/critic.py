"""The critic of PPO: a linear value function, fitted to all returns so far; also explained variance.

    V(s) = w . x(s)        w = argmin_w sum (w . x(s) - G(s))^2 + |w|^2

x(s) is the policy's hidden state, standardised over its d features and divided by sqrt(d); then the policy's confidence
(`Critic`), and a 1. The sum is over the states s of all earlier steps, and G(s) is the discounted sum of the rewards after
s. That is the linear baseline of Duan et al., "Benchmarking Deep Reinforcement Learning for Continuous Control" (2016,
section 5), with the states of a language model in place of observations. Fitting to G whatever the lambda of the
advantages is the decoupled GAE of Yuan et al., "What's Behind PPO's Collapse in Long-CoT?" (2025).

So the critic has no learning rate, which would have to shrink with the width, and no warm-up; and no clipping of the
value, which Andrychowicz et al., "What Matters in On-Policy Reinforcement Learning?" (2021) and Huang et al., "The 37
Implementation Details of PPO" (2022) find of no use. The states in x have length 1 at every width, so the penalty |w|^2
means the same. No gradient reaches the policy. The policy changes under the critic, but little from step to step.

Left out: forgetting old steps.

`ValueHead` is the other one, that most code has: a layer on the states, trained with the policy and through it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from posttrain.rollouts.groups import all_equal


class Critic:
    """Ridge regression of returns on hidden states (n, d) and confidence (n, m), numbers in [0, 1] known before the action.

    It is 0 everywhere before the first `learn`. gram and moment: sums of x x^T (d+m+1, d+m+1) and G x (d+m+1,), float64,
    changed in place; they are all that the critic remembers.
    """

    def __init__(self, width: int, confidences: int, device: torch.device | str = "cpu") -> None:
        size = width + confidences + 1
        self.gram = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.moment = torch.zeros(size, dtype=torch.float64, device=device)

    def __call__(self, states: Tensor, confidence: Tensor) -> Tensor:
        """Values (n,), float32."""
        ridge = torch.eye(len(self.moment), dtype=torch.float64, device=self.moment.device)
        weights = torch.linalg.solve(self.gram + ridge, self.moment)
        values: Tensor = _inputs(states, confidence) @ weights
        return values.float()

    def learn(self, states: Tensor, confidence: Tensor, returns: Tensor) -> None:
        """Add n states to those that the critic fits, with a return each (n,)."""
        inputs = _inputs(states, confidence)
        self.gram += inputs.T @ inputs
        self.moment += inputs.T @ returns.double()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""
        return {"gram": self.gram, "moment": self.moment}


class ValueHead(nn.Module):
    """V(s) = w . h(s) + b on the policy's own hidden states (n, d), trained by the gradient of its squared error.

    It is 0 everywhere at first. The gradient reaches the policy too. returns: of the last step's actions, that it is to be
    fitted to.
    """

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1, device=device)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.returns = torch.zeros(0)

    def forward(self, states: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Values (n,), float32."""
        found: Tensor = self.layer(states.float())
        return found.squeeze(-1)


def _inputs(states: Tensor, confidence: Tensor) -> Tensor:
    width = states.shape[1]
    states = nn.functional.layer_norm(states.double(), (width,)) / width**0.5
    return torch.cat([states, confidence.double(), torch.ones_like(states[:, :1])], dim=1)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than a constant.

    It is 0 too where all returns are equal, and there is nothing to explain.
    """
    if bool(all_equal(returns)):
        return 0.0
    spread = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / spread

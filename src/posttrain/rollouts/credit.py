"""Credit: advantages of a policy's actions from the rewards of its turns. Pure functions.

    delta_t = r_t + g_t V_t+1 - V_t        A_t = sum_l (prod_k<l g_t+k lambda) delta_t+l

is generalised advantage estimation (Schulman et al. 2016) over one episode's actions; observations are none of them, so
they have no place in it. With `token_gae` an action is a token, r its reward and V the value before it; g is `gamma` at
the end of a turn and 1 inside it, so a long answer is not worth less than a short one. With `turn_gae` an action is a
turn, V the value before its first token, and all its tokens share its advantage.

V is 0 after every end, also where the limit of turns is reached: that limit is part of the task, as success within it is
what is measured, and the row that the policy reads shows how many turns it has taken. Bootstrapping there would value
what no episode can still earn (Pardo et al., "Time Limits in Reinforcement Learning", 2018, call the two cases
time-aware and partial episodes).

The advantages of GRPO and RLOO compare the returns of the episodes of one start, a group.

Left out: comparing the turns of a group that were taken in the same state (GiGPO, Feng et al. 2025).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

from posttrain.rollouts.groups import ROUNDING, all_equal

Scale = Literal["group", "batch", "none"]
EPSILON = 1e-4  # added to a deviation, as TRL does


def token_gae(
    rewards: Sequence[float],
    values: Sequence[float],
    lengths: Sequence[int],
    gamma: float,
    gae_lambda: float,
) -> list[float]:
    """Advantages of one episode's T tokens, from the reward after each and the value before each.

    lengths: tokens of each turn, T in all.
    """
    last = [end for n in lengths for end in [*[False] * (n - 1), True]]
    advantages = [0.0] * len(rewards)
    ahead, value_ahead = 0.0, 0.0
    for t, (reward, value, end) in reversed([*enumerate(zip(rewards, values, last, strict=True))]):
        discount = gamma if end else 1.0
        delta = reward + discount * value_ahead - value
        ahead = delta + discount * gae_lambda * ahead
        advantages[t], value_ahead = ahead, value
    return advantages


def turn_gae(
    rewards: Sequence[float],
    values: Sequence[float],
    lengths: Sequence[int],
    gamma: float,
    gae_lambda: float,
) -> list[float]:
    """Like `token_gae`, but each token has the advantage of its turn; of the values only those before a turn are read."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    starts = [end - n for end, n in zip(ends, lengths, strict=True)]
    earned = [sum(rewards[start:end]) for start, end in zip(starts, ends, strict=True)]
    before = [values[start] for start in starts]
    found = token_gae(earned, before, [1] * len(lengths), gamma, gae_lambda)
    return [advantage for advantage, n in zip(found, lengths, strict=True) for _ in range(n)]


def returns_to_go(rewards: Sequence[float], lengths: Sequence[int], gamma: float) -> list[float]:
    """For each token, the rewards after it, discounted at the ends of turns."""
    return token_gae(rewards, [0.0] * len(rewards), lengths, gamma, 1.0)


def grpo_advantages(
    returns: Sequence[float], groups: Sequence[Hashable], scale: Scale = "group"
) -> Tensor:
    """Each episode's return minus its group's mean, over a deviation (see `generator/methods/grpo.py`), (N,)."""
    found = torch.tensor(returns, dtype=torch.float64)
    advantages = torch.zeros_like(found)
    for members in _members(groups).values():
        own = found[members]
        if len(own) < 2 or bool(all_equal(own)):
            continue
        deviation = own.std() + EPSILON if scale == "group" else 1.0
        advantages[members] = (own - own.mean()) / deviation
    if scale == "batch" and len(found) > 1:
        advantages /= found.std() + EPSILON
    return advantages.float()


def rloo_advantages(returns: Sequence[float], groups: Sequence[Hashable]) -> Tensor:
    """Each episode's return minus the mean of the others of its group, 0 without others, (N,)."""
    found = torch.tensor(returns, dtype=torch.float64)
    advantages = torch.zeros_like(found)
    for members in _members(groups).values():
        own = found[members]
        if len(own) > 1 and not bool(all_equal(own)):
            advantages[members] = own - (own.sum() - own) / (len(own) - 1)
    return advantages.float()


def equal_groups(returns: Sequence[float], groups: Sequence[Hashable]) -> float:
    """The share of groups whose returns are all equal, which teach nothing by comparison."""
    found = _members(groups).values()
    spreads = [max(returns[i] for i in m) - min(returns[i] for i in m) for m in found]
    return sum(spread <= ROUNDING for spread in spreads) / max(1, len(spreads))


def _members(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    members: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    return members

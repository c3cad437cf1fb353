"""Token-level PPO (Schulman et al. 2017) of a generator, as in RLHF (Ziegler et al. 2019, Ouyang et al. 2022).

    r_t = reward_t - kl_coef (log policy_old(a_t) - log SFT(a_t))     A = GAE(r, V), whitened over the batch
    ratio = policy(a_t) / policy_old(a_t)
    objective = mean_t min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)

A task of one turn is an episode of one turn, and both are trained by the loop of `generator.on_policy`. The reward of a
turn stands at its last token. `credit` says what an action is to GAE: a token, or a whole turn, which has one value
(`rollouts.credit`). gamma discounts at the ends of turns only, so it changes nothing in a task of one turn.

The KL penalty is the plain log-ratio of the sampled token: `k1` of Schulman, "Approximating KL Divergence" (2020), noisy
but unbiased; inside the reward its gradient is right as well.

V is the critic of `posttrain.rollouts.critic`, on the hidden states from which the tokens are drawn and on how likely the
answer so far was to the policy: its probability, and the geometric mean of those of its tokens. It is fitted to the steps
before; at the first it is 0.

With `value_coef` above 0 V is a layer on these states instead, trained by gradient with the policy and through it
(`rollouts.critic.ValueHead`), as most code has it:

    loss = - objective + value_coef mean_t (V(s_t) - (A_t + V_old(s_t)))^2 - entropy_coef mean_t H(policy(s_t))

where A is not whitened. Neither that nor a bonus for entropy is on by default; `ppo_affine` has both.

The states alone say next to nothing about returns: what the last layer keeps decides the next token. How much the critic
explains is on the curve `explained_variance`, and in the findings of a comparison.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from posttrain.core.loop import History, Stats
from posttrain.core.schema import Fraction, NonNegative
from posttrain.generator import on_policy
from posttrain.generator.on_policy import Acted
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.models.architecture import hidden_size
from posttrain.rollouts.credit import returns_to_go, token_gae, turn_gae
from posttrain.rollouts.critic import Critic, ValueHead, explained_variance
from posttrain.rollouts.groups import whiten


class Settings(OnPolicy):
    """credit: whether an action of GAE is a token or a turn. value_coef: of a value head's loss; 0: the fitted critic.
    entropy_coef: of the entropy of the next token.
    """

    gamma: Fraction
    gae_lambda: Fraction
    credit: Literal["token", "turn"] = "token"
    value_coef: NonNegative = 0.0
    entropy_coef: NonNegative = 0.0


def credit(critic: Critic | ValueHead, settings: Settings, acted: Acted) -> tuple[Tensor, Stats]:
    """Whitened advantages (M,), and how much of the returns the critic explained; `critic` learns from them."""
    gae = token_gae if settings.credit == "token" else turn_gae
    penalties = settings.kl_coef * (acted.log_probs - acted.reference_log_probs)
    turns = torch.split(acted.log_probs, list(acted.turns))
    likely = torch.cat([_confidence(each) for each in turns])
    values = critic(acted.states, likely)
    advantages, returns = list[list[float]](), list[list[float]]()
    for number, episode in enumerate(acted.episodes):
        lengths = [n for row in episode.rows for n in row.lengths]
        rewards = [-paid for paid in acted.of(number, penalties).tolist()]
        earned = [turn.reward for row in episode.rows for turn in row.turns]
        for last, reward in zip(accumulate(lengths), earned, strict=True):
            rewards[last - 1] += reward
        expected = acted.of(number, values).tolist()
        advantages.append(gae(rewards, expected, lengths, settings.gamma, settings.gae_lambda))
        returns.append(returns_to_go(rewards, lengths, settings.gamma))
    found, states, estimated = acted.spread(returns), acted.states, acted.spread(advantages)
    if settings.credit == "turn":
        starts = torch.tensor([0, *accumulate(acted.turns)][:-1], device=found.device)
        states, likely, before, found = (x[starts] for x in (states, likely, values, found))
        lengths_of = torch.tensor(acted.turns, device=found.device)
        spread = before.repeat_interleave(lengths_of)
    else:
        before = spread = values
    if isinstance(critic, ValueHead):
        critic.returns = estimated + spread
    else:
        critic.learn(states, likely, found)
    stats = {"explained_variance": explained_variance(before, found)}
    return whiten(estimated), stats


def _confidence(log_probs: Tensor) -> Tensor:
    """Of one turn's tokens (T,): the probability of all before each, and the geometric mean of theirs, (T, 2)."""
    before = log_probs.cumsum(dim=0) - log_probs
    count = torch.arange(len(log_probs), device=log_probs.device).clamp(min=1)
    return torch.stack([before, before / count], dim=1).exp()


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place; it ends with the weights of its best validation."""
    width, place = hidden_size(run.model.config), next(run.model.parameters()).device
    critic: Critic | ValueHead
    if settings.value_coef:
        critic = ValueHead(width, place)
        head, state = critic, dict[str, Tensor]()
    else:
        critic, head = Critic(width, 2, place), None
        state = {f"critic/{name}": tensor for name, tensor in critic.tensors().items()}
    return on_policy.train(
        run,
        settings,
        partial(credit, critic, settings),
        terms=on_policy.Terms(entropy=settings.entropy_coef, value=settings.value_coef, head=head),
        with_states=True,
        state=state,
    )

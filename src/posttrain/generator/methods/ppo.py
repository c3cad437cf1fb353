"""Token-level PPO (Schulman et al. 2017) of a generator, as in RLHF (Ziegler et al. 2019, Ouyang et al. 2022).

    r_t = reward_t - kl_coef (log policy_old(a_t) - log SFT(a_t))     A = GAE(r, V), whitened over the batch
    ratio = policy(a_t) / policy_old(a_t)
    objective = mean_t min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)

Every token that the policy wrote is an action. The KL penalty is the plain log-ratio of the sampled token: `k1` of
Schulman, "Approximating KL Divergence" (2020), noisy but unbiased; inside the reward its gradient is right as well. All
log-probabilities, the reference's too, are those of the sampling distribution, softmax(logits / temperature). Dropout
is off throughout, as the ratio must compare two policies and not two dropout masks.

V is the critic of `posttrain.rollouts.critic`, on the hidden states from which the tokens are drawn and on how likely the
answer so far was to the policy: its probability, and the geometric mean of those of its tokens. It is fitted to the steps
before; at the first it is 0.

The states alone say next to nothing about returns: what the last layer keeps decides the next token. How much the critic
explains is on the curve `explained_variance`, and in the findings of a comparison.

The reference is a copy of the trained tensors as they were at the start, used in their place. Switching the adapter off
would give the base model, not the SFT policy, whose adapter is trained further.

All randomness of a step derives from (seed, step), so a resumed run repeats the uninterrupted one. Several processes
(`posttrain.core.processes`) sample the completions of a step together, share the passes over them, combine the results
of `rollout`, and step on the sum of their gradients.

Left out: bootstrapping of unfinished completions, an entropy bonus, early stopping by KL.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor, nn

from posttrain.core import loop, processes
from posttrain.core.loop import History, Stats, rate_share
from posttrain.core.schema import Fraction, Rate
from posttrain.generator.batches import (
    TokenBatch,
    collate,
    forward,
    in_batches,
    prompt_batches,
    token_log_probs,
)
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.models.architecture import disable_dropout, hidden_size
from posttrain.models.sharding import check_trainable
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.critic import Critic, explained_variance, gae
from posttrain.rollouts.episode import Episode, completion_episode
from posttrain.rollouts.groups import whiten
from posttrain.rollouts.writer import Generator


class Settings(OnPolicy):
    clip_range: Rate
    gamma: Fraction
    gae_lambda: Fraction


@dataclass(frozen=True, slots=True)
class Rollout:
    """Batches of episodes, and a number for each of their M actions, batch after batch: (M,) unless noted."""

    batches: Sequence[TokenBatch]
    old_log_probs: Tensor
    advantages: Tensor

    @property
    def sizes(self) -> list[int]:
        """Actions in each batch."""
        return [len(batch.tokens) for batch in self.batches]


@torch.no_grad()
def rollout(
    model: Generator,
    critic: Critic,
    reference: Mapping[str, Tensor],
    episodes: Sequence[Episode],
    settings: Settings,
    batch_size: int,
) -> tuple[Rollout, Stats]:
    """Log-probabilities and advantages of episodes just sampled from `model`, and statistics; `critic` learns from them."""
    device = critic.gram.device
    parts = in_batches(model, episodes, batch_size)
    ordered, batches = [*chain(*parts)], [collate(part, device) for part in parts]
    old_log_probs, reference_log_probs, entropies, states = _act_on_all(
        model, reference, batches, settings.temperature
    )
    log_ratio = old_log_probs - reference_log_probs

    lengths = [sum(episode.actions) for episode in ordered]
    likely = torch.cat([_confidence(each) for each in torch.split(old_log_probs, lengths)])
    values = critic(states, likely)
    penalties = torch.split(settings.kl_coef * log_ratio, lengths)
    advantages, returns = list[float](), list[float]()
    for episode, penalty, expected in zip(
        ordered, penalties, torch.split(values, lengths), strict=True
    ):
        pairs = zip(episode.action_rewards(), penalty.tolist(), strict=True)
        rewards = [reward - paid for reward, paid in pairs]
        advantages += gae(rewards, expected.tolist(), settings.gamma, settings.gae_lambda)
        returns += gae(rewards, [0.0] * len(rewards), settings.gamma, 1.0)
    found = torch.tensor(returns, device=device)
    critic.learn(states, likely, found)
    made = Rollout(batches, old_log_probs, whiten(torch.tensor(advantages, device=device)))
    return made, {
        "reward": sum(sum(e.action_rewards()) for e in ordered) / len(ordered),
        "kl": float(log_ratio.sum()) / len(ordered),
        "entropy": float(entropies.mean()),
        "explained_variance": explained_variance(values, found),
        "completion_tokens": sum(lengths) / len(lengths),
    }


def _confidence(log_probs: Tensor) -> Tensor:
    """Of one episode's tokens (T,): the probability of all before each, and the geometric mean of theirs, (T, 2)."""
    before = log_probs.cumsum(dim=0) - log_probs
    count = torch.arange(len(log_probs), device=log_probs.device).clamp(min=1)
    return torch.stack([before, before / count], dim=1).exp()


def loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """The negative clipped objective of each action, and whether its ratio was outside the range: (n,) each."""
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    return -objective, clipped != ratio


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place; it ends with the weights of its best validation.

    run.batch_size: episodes per forward pass; the gradient is that of the mean over all actions of the rollout batch,
    however many passes that takes.
    """
    steps = settings.steps
    rows = run.data.prompts(settings.prompts)
    prompts = tokenize_prompts([row["prompt"] for row in rows], run.tokenizer)
    model = run.model
    check_trainable(model, "the generator")
    disable_dropout(model)
    reference = {
        name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
    }
    critic = Critic(hidden_size(model.config), 2, next(model.parameters()).device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    batches = prompt_batches(prompts, settings.prompts_per_step, steps, run.seed)

    def take_step(step: int) -> Stats:
        disable_dropout(model)
        asked = batches[step]
        groups = run.sample(
            model,
            run.tokenizer,
            [prompts[row] for row in asked],
            temperatures=[settings.temperature] * settings.samples,
            max_new_tokens=run.max_new_tokens,
            top_p=1.0,
            seed=random.Random(f"{run.seed}/{step}").getrandbits(32),
            batch_size=run.in_flight,
        )
        completions = [completion for group in groups for completion in group]
        sources = [row for row in asked for _ in range(settings.samples)]
        rewards = run.reward.rewards(
            [completion.text for completion in completions],
            [rows[row]["example"] for row in sources],
        )
        episodes = [
            completion_episode(prompts[row], completion.ids, worth)
            for row, completion, worth in zip(sources, completions, rewards, strict=True)
        ]
        made, stats = rollout(model, critic, reference, episodes, settings, run.batch_size)
        stats["finished"] = sum(c.finished for c in completions) / len(completions)
        return stats | _update(model, optimizer, made, settings, step)

    state = {f"critic/{name}": tensor for name, tensor in critic.tensors().items()}
    return loop.train(run, {"model": model}, optimizer, settings, steps, take_step, state=state)


def _update(
    model: Generator,
    optimizer: torch.optim.Optimizer,
    made: Rollout,
    settings: Settings,
    step: int,
) -> Stats:
    """Take `inner_epochs` optimizer steps on a rollout batch; statistics are means over them."""
    (group,) = optimizer.param_groups
    totals: dict[str, float] = {}
    for epoch in range(settings.inner_epochs):
        progress = (step + epoch / settings.inner_epochs) / settings.steps
        group["lr"] = settings.learning_rate * rate_share(progress, settings.warmup)
        optimizer.zero_grad()
        stats = _accumulate(model, made, settings)
        norm = nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
        optimizer.step()
        for name, number in {
            **stats,
            "grad_norm": float(norm),
            "learning_rate": group["lr"],
        }.items():
            totals[name] = totals.get(name, 0.0) + number / settings.inner_epochs
    return totals


def _accumulate(model: Generator, made: Rollout, settings: Settings) -> Stats:
    """Add up the gradients of the mean loss over all actions, batch by batch and over all processes."""
    count = len(made.advantages)
    totals = {"policy_loss": 0.0, "clip_fraction": 0.0}
    parts = zip(
        made.batches,
        torch.split(made.old_log_probs, made.sizes),
        torch.split(made.advantages, made.sizes),
        strict=True,
    )
    for (batch, old_log_probs, advantages), counts in processes.share(list(parts)):
        log_probs = token_log_probs(
            forward(model, batch).logits, batch.tokens, settings.temperature
        )
        losses, outside = loss(log_probs, old_log_probs, advantages, settings.clip_range)
        part = losses.sum() / count * counts
        part.backward()  # type: ignore[no-untyped-call]
        totals["policy_loss"] += float(part.detach())
        totals["clip_fraction"] += float(outside.sum()) / count * counts
    processes.total_gradients(p for p in model.parameters() if p.requires_grad)
    return processes.total_stats(totals)


def _act_on_all(
    model: Generator,
    reference: Mapping[str, Tensor],
    batches: Sequence[TokenBatch],
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The results of `_act` for the actions of all batches; each process runs the model on its share."""
    ends = list(accumulate(len(batch.tokens) for batch in batches))
    shape = (ends[-1], 3 + hidden_size(model.config))
    found = torch.zeros(shape, device=batches[0].ids.device)
    for (end, batch), counts in processes.share(list(zip(ends, batches, strict=True))):
        parts = _act(model, reference, batch, temperature)
        if counts:
            found[end - len(batch.tokens) : end] = torch.column_stack(parts)
    found = processes.total(found)
    log_probs, others, entropies = (found[:, column].contiguous() for column in range(3))
    return log_probs, others, entropies, found[:, 3:].contiguous()


def _act(
    model: Generator, reference: Mapping[str, Tensor], batch: TokenBatch, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each action's log-probability, the reference's, and the entropy before it, (n,) each; hidden states (n, d)."""
    own = forward(model, batch)
    log_policy = torch.log_softmax(own.logits.float() / temperature, dim=-1)
    entropy = -(log_policy.exp() * log_policy).sum(dim=-1)
    other = forward(model, batch, reference)
    return (
        token_log_probs(own.logits, batch.tokens, temperature),
        token_log_probs(other.logits, batch.tokens, temperature),
        entropy,
        own.states.float(),
    )

"""The loop of the methods that sample while they train and are ours: PPO, and over episodes also GRPO and RLOO.

    play episodes -> log-probabilities of their actions -> advantages, which are the method's own -> inner_epochs updates

    ratio = policy(a_t) / policy_old(a_t)        d_t = log SFT(a_t) - log policy(a_t)
    objective = mean_t min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - kl ratio (exp(d_t) - d_t - 1)
                       + entropy H(policy before a_t) - value (V(s_t) - R_t)^2

The last three are further terms, by default 0 (`Terms`).
Every token that the policy wrote is an action, in whatever row of its episode; prompts and observations have no logits
here at all. The mean is over all actions of the rollout batch. All log-probabilities, the reference's too, are those of
the sampling distribution, softmax(logits / temperature). Dropout is off throughout, as the ratio must compare two
policies and not two dropout masks.

The reference is a copy of the trained tensors as they were at the start, used in their place. Switching the adapter off
would give the base model, not the SFT policy, whose adapter is trained further.

Batches go by row; rewards, KL and advantages by episode. Episodes that ended with an error of the environment are in
neither the loss nor a mean; more than 1 % of them end the training.

`turn_caps`: the most turns of an episode in each of as many equal parts of the training, as in ScalingInter-RL (Xi et al.,
"AgentGym-RL", 2025). `curriculum`: groups of questions that are asked from later on (`generator.curriculum`).

All randomness of a step derives from (seed, step), so a resumed run repeats the uninterrupted one. Several processes
(`posttrain.core.processes`) play the episodes of a step together, share the passes over them, combine the results of
`rollout`, and step on the sum of their gradients.

Left out: early stopping by KL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain

import torch
from torch import Tensor, nn

from posttrain.core import loop, processes
from posttrain.core.loop import History, Stats, rate_share
from posttrain.generator.batches import (
    TokenBatch,
    collate,
    forward,
    in_batches,
    prompt_batches,
)
from posttrain.generator.curriculum import Groups
from posttrain.generator.run import Run
from posttrain.generator.settings import OnPolicy
from posttrain.models.architecture import disable_dropout, hidden_size
from posttrain.models.sharding import check_trainable
from posttrain.models.tokens import tokenize_prompts
from posttrain.rollouts.credit import equal_groups
from posttrain.rollouts.critic import ValueHead
from posttrain.rollouts.episode import Episode
from posttrain.rollouts.play import check_errors, successes
from posttrain.rollouts.writer import Generator


@dataclass(frozen=True, slots=True)
class Acted:
    """The episodes of a step, and what policy and reference say of their M actions: (M,) unless noted.

    Actions are ordered by batch, row and turn. turns: tokens of each turn, in that order. places: for each episode, the
    actions of each of its rows. states: (M, d), or (M, 0) if they were not asked for.
    """

    episodes: Sequence[Episode]
    places: Sequence[Sequence[slice]]
    turns: Sequence[int]
    log_probs: Tensor
    reference_log_probs: Tensor
    entropies: Tensor
    states: Tensor

    def of(self, number: int, values: Tensor) -> Tensor:
        """Of a number for each action, those of one episode, in its order."""
        return torch.cat([values[place] for place in self.places[number]])

    def of_episodes(self, values: Tensor) -> Tensor:
        """A number for each action, from one for each episode (N,)."""
        found = torch.zeros_like(self.log_probs)
        for places, own in zip(self.places, values, strict=True):
            for place in places:
                found[place] = own
        return found

    def spread(self, values: Sequence[Sequence[float]]) -> Tensor:
        """A number for each action, from lists of them for each episode; the inverse of `of`."""
        found = torch.zeros_like(self.log_probs)
        for places, own in zip(self.places, values, strict=True):
            left = torch.tensor(own, device=found.device)
            for place in places:
                count = place.stop - place.start
                found[place], left = left[:count], left[count:]
        return found


@dataclass(frozen=True, slots=True)
class Rollout:
    """Batches of rows, and a number for each of their M actions, batch after batch: (M,) each."""

    batches: Sequence[TokenBatch]
    old_log_probs: Tensor
    reference_log_probs: Tensor
    advantages: Tensor
    returns: Tensor | None = None  # what a value head is fitted to

    @property
    def sizes(self) -> list[int]:
        """Actions in each batch."""
        return [len(batch.tokens) for batch in self.batches]


@dataclass(frozen=True, slots=True)
class Terms:
    """Weights of further terms of the loss: the KL to the reference, the entropy, and the squared error of `head`."""

    kl: float = 0.0
    entropy: float = 0.0
    value: float = 0.0
    head: ValueHead | None = None


Credit = Callable[[Acted], tuple[Tensor, Stats]]  # advantages (M,), and statistics


@torch.no_grad()
def rollout(
    model: Generator,
    reference: Mapping[str, Tensor],
    episodes: Sequence[Episode],
    settings: OnPolicy,
    batch_size: int,
    credit: Credit,
    with_states: bool = False,
) -> tuple[Rollout, Stats]:
    """Log-probabilities and advantages of episodes just sampled from `model`, and statistics.

    with_states: whether `credit` needs the hidden states.
    """
    whole = [episode for episode in episodes if episode.end != "error"]
    rows = [row for episode in whole for row in episode.rows]
    parts = in_batches(model, rows, batch_size)
    device = next(model.parameters()).device
    batches = [collate(part, device) for part in parts]
    width = hidden_size(model.config) if with_states else 0
    columns = _act_on_all(model, reference, batches, settings.temperature, width)

    turns, places, end = list[int](), dict[int, slice](), 0
    for row in chain(*parts):
        start, end = end, end + sum(row.lengths)
        places[id(row)] = slice(start, end)
        turns += row.lengths
    ordered = sorted(whole, key=lambda e: min(places[id(row)].start for row in e.rows))
    acted = Acted(ordered, [[places[id(row)] for row in e.rows] for e in ordered], turns, *columns)
    advantages, stats = credit(acted)
    log_probs, reference_log_probs, entropies, _ = columns
    made = Rollout(batches, log_probs, reference_log_probs, advantages)
    return made, {
        "reward": sum(e.score for e in acted.episodes) / len(acted.episodes),
        "kl": float((log_probs - reference_log_probs).sum()) / len(acted.episodes),
        "entropy": float(entropies.mean()),
        **stats,
        "completion_tokens": sum(turns) / len(acted.episodes),
        **_told(episodes, whole),
    }


def _told(episodes: Sequence[Episode], whole: Sequence[Episode]) -> Stats:
    """Statistics of words and ends; a task of one turn has no more than the share of finished answers."""
    steps = [step for episode in whole for step in episode.steps]
    stats = {"finished": sum(step.finished for step in steps) / len(steps)}
    if all(episode.end is None for episode in episodes):
        return stats
    return stats | {
        "success": successes(episodes),
        "turns": len(steps) / len(whole),
        "invalid": sum(not step.valid for step in steps) / len(steps),
        "limit": sum(episode.end == "limit" for episode in whole) / len(whole),
        "errors": 1 - len(whole) / len(episodes),
        "equal_rewards": equal_groups([e.score for e in whole], [e.id for e in whole]),
        "rows": sum(len(episode.rows) for episode in whole) / len(whole),
    }


def loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """The negative clipped objective of each action, and whether its ratio was outside the range: (n,) each."""
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    return -objective, clipped != ratio


def kl_loss(log_probs: Tensor, old_log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """The estimate of the KL to the reference for each action, times its ratio (see `generator/methods/grpo.py`), (n,)."""
    difference = reference_log_probs - log_probs
    ratio = (log_probs - old_log_probs).exp()
    return ratio * (difference.exp() - difference - 1)


def train(
    run: Run,
    settings: OnPolicy,
    credit: Credit,
    *,
    terms: Terms = Terms(),
    with_states: bool = False,
    state: Mapping[str, Tensor] = {},
) -> History:
    """Train `run.model` in place; it ends with the weights of its best validation.

    credit: gives the actions of a step their advantages, and a value head the returns that it is fitted to. state: tensors
    that `credit` changes in place. run.batch_size: rows per forward pass; the gradient is that of the mean over all actions
    of the rollout batch, however many passes that takes.
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
    trained: dict[str, nn.Module] = {"model": model}
    trained |= {"value": terms.head} if terms.head is not None else {}
    parameters = [p for each in trained.values() for p in each.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    groups, batches = None, list[list[int]]()
    if settings.curriculum.by is None:
        batches = prompt_batches(prompts, settings.prompts_per_step, steps, run.seed)
    else:
        asked = [run.data.examples[row["example"]] for row in rows]
        groups = Groups(settings.curriculum, asked, steps)
        state = {**state, "curriculum": groups.state}
    played = torch.zeros(2, dtype=torch.int64)  # episodes so far with an error, and all

    def take_step(step: int) -> Stats:
        disable_dropout(model)
        caps = settings.turn_caps
        batch = (
            groups.ask(settings.prompts_per_step, run.seed, step)
            if groups is not None
            else batches[step]
        )
        episodes = run.play(
            model,
            [rows[row] for row in batch],
            settings.samples,
            settings.temperature,
            run.seed,
            step,
            turns=caps[step * len(caps) // steps] if caps else None,
        )
        failed = sum(episode.end == "error" for episode in episodes)
        played.add_(torch.tensor([failed, len(episodes)]))
        check_errors(int(played[0]), int(played[1]), episodes)
        made, stats = rollout(
            model, reference, episodes, settings, run.batch_size, credit, with_states
        )
        if terms.head is not None:
            made = replace(made, returns=terms.head.returns)
        stats |= take_steps(model, optimizer, made, settings, terms, step)
        return stats | (groups.learn(batch, episodes) if groups is not None else {})

    return loop.train(
        run,
        trained,
        optimizer,
        settings,
        steps,
        take_step,
        state={**state, "played": played},
    )


def take_steps(
    model: Generator,
    optimizer: torch.optim.Optimizer,
    made: Rollout,
    settings: OnPolicy,
    terms: Terms,
    step: int,
) -> Stats:
    """Take `inner_epochs` optimizer steps on a rollout batch; statistics are means over them."""
    (group,) = optimizer.param_groups
    totals: dict[str, float] = {}
    for epoch in range(settings.inner_epochs):
        progress = (step + epoch / settings.inner_epochs) / settings.steps
        group["lr"] = settings.learning_rate * rate_share(progress, settings.warmup)
        optimizer.zero_grad()
        stats = accumulate_gradients(model, made, settings, terms)
        norm = nn.utils.clip_grad_norm_(group["params"], settings.max_grad_norm)
        optimizer.step()
        for name, number in {
            **stats,
            "grad_norm": float(norm),
            "learning_rate": group["lr"],
        }.items():
            totals[name] = totals.get(name, 0.0) + number / settings.inner_epochs
    return totals


def accumulate_gradients(
    model: Generator, made: Rollout, settings: OnPolicy, terms: Terms = Terms()
) -> Stats:
    """Add up the gradients of the mean loss over all actions, batch by batch and over all processes."""
    count = len(made.advantages)
    totals = {"policy_loss": 0.0, "clip_fraction": 0.0}
    returns = torch.zeros_like(made.advantages) if made.returns is None else made.returns
    numbers = (made.old_log_probs, made.reference_log_probs, made.advantages, returns)
    parts = zip(made.batches, *(torch.split(each, made.sizes) for each in numbers), strict=True)
    for (
        batch,
        old_log_probs,
        reference_log_probs,
        advantages,
        expected,
    ), counts in processes.share(list(parts)):
        own = forward(model, batch)
        if terms.entropy:
            log_probs, entropies = own.with_entropies(batch.tokens, settings.temperature)
        else:
            log_probs, entropies = own.log_probs(batch.tokens, settings.temperature), None
        losses, outside = loss(log_probs, old_log_probs, advantages, settings.clip_range)
        if terms.kl:
            losses = losses + terms.kl * kl_loss(log_probs, old_log_probs, reference_log_probs)
        if entropies is not None:
            losses = losses - terms.entropy * entropies
        if terms.head is not None:
            errors = (terms.head(own.states) - expected).square()
            losses = losses + terms.value * errors
            value_loss = float(errors.detach().sum()) / count * counts
            totals["value_loss"] = totals.get("value_loss", 0.0) + value_loss
        part = losses.sum() / count * counts
        part.backward()  # type: ignore[no-untyped-call]
        totals["policy_loss"] += float(part.detach())
        totals["clip_fraction"] += float(outside.sum()) / count * counts
    trained = [model, *([terms.head] if terms.head is not None else [])]
    processes.total_gradients(p for each in trained for p in each.parameters() if p.requires_grad)
    return processes.total_stats(totals)


def _act_on_all(
    model: Generator,
    reference: Mapping[str, Tensor],
    batches: Sequence[TokenBatch],
    temperature: float,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The results of `_act` for the actions of all batches; each process runs the model on its share.

    width: of the hidden states, 0 to leave them out.
    """
    ends = list(accumulate(len(batch.tokens) for batch in batches))
    found = torch.zeros((ends[-1], 3 + width), device=batches[0].ids.device)
    for (end, batch), counts in processes.share(list(zip(ends, batches, strict=True))):
        *parts, states = _act(model, reference, batch, temperature)
        if counts:
            found[end - len(batch.tokens) : end] = torch.column_stack([*parts, states[:, :width]])
    found = processes.total(found)
    log_probs, others, entropies = (found[:, column].contiguous() for column in range(3))
    return log_probs, others, entropies, found[:, 3:].contiguous()


def _act(
    model: Generator, reference: Mapping[str, Tensor], batch: TokenBatch, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each action's log-probability, the reference's, and the entropy before it, (n,) each; hidden states (n, d)."""
    own = forward(model, batch)
    log_probs, entropies = own.with_entropies(batch.tokens, temperature)
    others = forward(model, batch, reference).log_probs(batch.tokens, temperature)
    return log_probs, others, entropies, own.states.float()

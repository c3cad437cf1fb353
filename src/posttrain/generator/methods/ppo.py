"""Token-level PPO (Schulman et al. 2017) of a generator, as in RLHF (Ziegler et al. 2019, Ouyang et al. 2022).

    r_t = reward_t - kl_coef (log policy_old(a_t) - log SFT(a_t))     A = GAE(r, V), whitened over the batch
    ratio = policy(a_t) / policy_old(a_t)
    objective = mean_t min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)

Every token that the policy wrote is an action. The KL penalty uses the plain log-ratio of the drawn token: `k1` of
Schulman, "Approximating KL Divergence" (2020), noisy but unbiased, and inside the reward also its gradient is right.
All log-probabilities, the reference's too, are those of the distribution that was sampled from: softmax(logits /
temperature). Dropout is off throughout, as the ratio has to compare two policies and not two dropout masks.

The value network reads the policy's hidden states but sends no gradient back into them: the policy is small and
starts from SFT, and a value error, large at first, would move it before any advantage can be trusted. So the network
has a learning rate of its own, needs no coefficient, and trains on the states stored at the rollout, without running
the policy again; its first `value_warmup_steps` steps leave the policy alone.

The reference is the starting weights: a copy of what is trained, used in place of the trained tensors. An adapter
that was switched off would be the base model instead, not the SFT policy whose adapter goes on being trained.

All randomness of a step derives from (seed, step), so a resumed run repeats what the uninterrupted one would have
done. Several processes (`posttrain.core.processes`) draw the completions of a step together, share the passes over them, put
together what `rollout` finds, and step on the sum of their gradients.

Left out: bootstrapping of unfinished completions, an entropy bonus, early stopping by KL.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.errors import UserError
from posttrain.core.params import GeneratorPPO
from posttrain.core.training import (
    History,
    Stats,
    below,
    load_trainable_state,
    optimizer_tensors,
    rate_share,
    restore_optimizer,
    trainable_state,
)
from posttrain.generator.value import ValueNetwork, explained_variance, gae, value_loss
from posttrain.models.architecture import disable_dropout, hidden_size
from posttrain.models.sharding import check_trainable
from posttrain.models.tokens import length_buckets, pad
from posttrain.rollouts.episode import Episode, completion_episode
from posttrain.rollouts.sampling import Sampler
from posttrain.rollouts.writer import Generator

# Of completions: their texts, and the index of each one's prompt.
RewardFunction = Callable[[Sequence[str], Sequence[int]], list[float]]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """B episodes padded on the right; `tokens` are their n actions, one episode behind the other."""

    ids: Tensor  # (B, L) int64
    before_action: Tensor  # (B, L) bool, True where the next id is an action
    tokens: Tensor  # (n,) int64


class Forward(NamedTuple):
    """What the model says before each of n actions: logits (n, V) and hidden states (n, d)."""

    logits: Tensor
    states: Tensor


@dataclass(frozen=True, slots=True)
class Rollout:
    """Episodes in batches, and what is known of each of their M actions, one batch behind the other, (M,)."""

    batches: Sequence[TokenBatch]
    old_log_probs: Tensor
    advantages: Tensor
    states: Tensor  # (M, d)
    old_values: Tensor
    returns: Tensor

    @property
    def sizes(self) -> list[int]:
        """Actions in each batch."""
        return [len(batch.tokens) for batch in self.batches]


def collate(episodes: Sequence[Episode], device: torch.device | str = "cpu") -> TokenBatch:
    """Pad episodes into one batch; pads are id 0, and nothing real sees them."""
    ids, _ = pad([episode.ids for episode in episodes])
    actions, _ = pad([episode.actions for episode in episodes])
    is_action = actions.bool()
    if is_action[:, 0].any():
        raise ValueError("an episode cannot begin with an action: no state comes before it")
    return TokenBatch(
        ids.to(device), is_action.roll(-1, dims=1).to(device), ids[is_action].to(device)
    )


def forward(
    model: Generator, batch: TokenBatch, weights: Mapping[str, Tensor] | None = None
) -> Forward:
    """Run the model, and its head only where the next token is an action.

    weights: used in place of the model's own tensors of these names. The batch needs no attention mask, as its pads
    are on the right.
    """
    head: nn.Module | None = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(model).__name__} has no language-model head, so it cannot write")
    states: list[Tensor] = []

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        states.append(inputs[0][batch.before_action])
        return (states[0][None],)

    # A hook rather than backbone and head apart: what a model does to its logits (scale, soft cap) stays in.
    handle = head.register_forward_pre_hook(select)
    try:
        arguments = {"input_ids": batch.ids, "use_cache": False}
        output = functional_call(model, dict(weights or {}), (), arguments)
    finally:
        handle.remove()
    return Forward(output.logits[0], states[0])


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature) of each token: (n, V) and (n,) to (n,) float32."""
    return -cross_entropy(logits.float() / temperature, tokens, reduction="none")


@torch.no_grad()
def rollout(
    model: Generator,
    value: ValueNetwork,
    reference: Mapping[str, Tensor],
    episodes: Sequence[Episode],
    config: GeneratorPPO,
    batch_size: int,
) -> tuple[Rollout, Stats]:
    """Log-probabilities, values and advantages of the episodes just drawn from `model`."""
    device = next(value.parameters()).device
    # Similar lengths waste fewest tokens on padding, and a batch too long for the memory fails at once.
    ordered = sorted(episodes, key=lambda episode: len(episode.ids), reverse=True)
    batches = [collate(part, device) for part in processes.batches(ordered, batch_size)]
    old_log_probs, reference_log_probs, entropies, states = _act_on_all(
        model, reference, batches, config.temperature
    )
    old_values: Tensor = value(states)
    log_ratio = old_log_probs - reference_log_probs

    lengths = [sum(episode.actions) for episode in ordered]
    penalties = torch.split(config.kl_coef * log_ratio, lengths)
    flat: list[float] = []
    for episode, penalty, values in zip(
        ordered, penalties, torch.split(old_values, lengths), strict=True
    ):
        pairs = zip(episode.action_rewards(), penalty.tolist(), strict=True)
        rewards = [reward - paid for reward, paid in pairs]
        flat += gae(rewards, values.tolist(), config.gamma, config.gae_lambda)
    advantages = torch.tensor(flat, device=device)
    returns = advantages + old_values
    made = Rollout(batches, old_log_probs, whiten(advantages), states, old_values, returns)
    return made, {
        "reward": sum(sum(e.action_rewards()) for e in ordered) / len(ordered),
        "kl": float(log_ratio.sum()) / len(ordered),
        "entropy": float(entropies.mean()),
        "explained_variance": explained_variance(old_values, returns),
        "completion_tokens": sum(lengths) / len(lengths),
    }


def loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """The negative clipped objective of each action, and whether its ratio was outside the range: (n,) each."""
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    return -objective, clipped != ratio


def whiten(advantages: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over all actions of the batch."""
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)


def train(
    model: Generator,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    reward: RewardFunction,
    config: GeneratorPPO,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
    generation_batch_size: int,
    sample: Sampler,
    evaluate: Callable[[Generator], Stats],
    checkpoint: CheckpointFile,
    report: Callable[[int, int, History], None],
) -> History:
    """Train `model` in place; it ends with the weights of its best evaluation.

    prompts: token ids. reward: of completions, by their texts and the index in `prompts` of each one's prompt.
    batch_size: episodes per forward pass; a gradient is that of the mean over all actions of the rollout batch,
    however many passes it takes. generation_batch_size: passed to `sample`.
    evaluate: gives at least "reward", by which the best is chosen.
    report: called after each step with (steps done, steps in all, history). In the steps that train the value network
    only, the rows of history.train have no "policy_loss", "clip_fraction" and "grad_norm".
    """
    steps = config.steps
    if config.value_warmup_steps >= steps:
        raise UserError(
            f"rl.generator.ppo.value_warmup_steps: {config.value_warmup_steps}, but there are "
            f"only {steps} steps, so the policy would never be trained"
        )
    check_trainable(model, "the generator")
    disable_dropout(model)
    reference = {
        name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
    }
    value = _new_value(model, seed)
    policy: dict[str, nn.Parameter] = {
        f"model/{name}": p for name, p in model.named_parameters() if p.requires_grad
    }
    critic = {f"value/{name}": p for name, p in value.named_parameters()}
    parameters = policy | critic
    optimizer = torch.optim.AdamW(
        [{"params": list(policy.values())}, {"params": list(critic.values())}],
        weight_decay=config.weight_decay,
    )
    batches = _prompt_batches(prompts, config.prompts_per_step, steps, seed)
    evaluate_at = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    save_at = {max(1, round(steps * (i + 1) / 10)) for i in range(9)}
    history = History()
    best: dict[str, Tensor] = {}
    done = 0

    if (saved := checkpoint.load()) is not None:
        done = saved.state["done"]
        history = History(saved.state["train"], saved.state["val"])
        best = below(saved.tensors, "best")
        load_trainable_state(model, below(saved.tensors, "model"))
        value.load_state_dict(below(saved.tensors, "value"))
        restore_optimizer(optimizer, parameters, saved.tensors)
    else:
        history.val.append({"step": 0.0, **evaluate(model)})
    report(done, steps, history)

    for step in range(done, steps):
        disable_dropout(model)
        rows = batches[step]
        drawn = sample(
            model,
            tokenizer,
            [prompts[row] for row in rows],
            count=config.samples,
            max_new_tokens=max_new_tokens,
            temperature=config.temperature,
            top_p=1.0,
            seed=random.Random(f"{seed}/{step}").getrandbits(32),
            batch_size=generation_batch_size,
        )
        completions = [completion for group in drawn for completion in group]
        sources = [row for row in rows for _ in range(config.samples)]
        rewards = reward([completion.text for completion in completions], sources)
        episodes = [
            completion_episode(prompts[row], completion.ids, worth)
            for row, completion, worth in zip(sources, completions, rewards, strict=True)
        ]
        made, stats = rollout(model, value, reference, episodes, config, batch_size)
        stats["finished"] = sum(c.finished for c in completions) / len(completions)
        stats |= _update(model, value, optimizer, made, config, step)
        history.train.append({"step": float(step + 1), **stats})
        if step + 1 in evaluate_at:
            result = evaluate(model)
            history.val.append({"step": float(step + 1), **result})
            # The start is on the curve, but it is not a result of this training.
            if result["reward"] >= max(row["reward"] for row in history.val[1:]):
                best = trainable_state(model)
        if step + 1 in save_at:
            tensors: dict[str, Tensor] = {**parameters}
            tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
            tensors |= optimizer_tensors(optimizer, parameters)
            state = {"done": step + 1, "train": history.train, "val": history.val}
            if processes.is_main():
                checkpoint.save(tensors, state)
        report(step + 1, steps, history)
    load_trainable_state(model, best)
    return history


def _update(
    model: Generator,
    value: ValueNetwork,
    optimizer: torch.optim.Optimizer,
    made: Rollout,
    config: GeneratorPPO,
    step: int,
) -> Stats:
    """`inner_epochs` optimizer steps on a rollout batch; statistics are means over them."""
    policy_group, value_group = optimizer.param_groups
    trains_policy = step >= config.value_warmup_steps
    totals: dict[str, list[float]] = {}
    for epoch in range(config.inner_epochs):
        now = step + epoch / config.inner_epochs
        value_group["lr"] = config.value_learning_rate * rate_share(
            now / config.steps, config.warmup
        )
        optimizer.zero_grad()
        values = value(made.states)
        error = value_loss(values, made.old_values, made.returns, config.value_clip_range)
        error.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(value_group["params"], config.max_grad_norm)
        stats = {"value_loss": float(error.detach())}
        if trains_policy:
            # The policy's schedule begins when its training does.
            progress = (now - config.value_warmup_steps) / (
                config.steps - config.value_warmup_steps
            )
            policy_group["lr"] = config.learning_rate * rate_share(progress, config.warmup)
            stats |= _accumulate(model, made, config)
            norm = nn.utils.clip_grad_norm_(policy_group["params"], config.max_grad_norm)
            stats |= {"grad_norm": float(norm), "learning_rate": policy_group["lr"]}
        optimizer.step()
        for name, number in stats.items():
            totals.setdefault(name, []).append(number)
    return {name: sum(numbers) / len(numbers) for name, numbers in totals.items()}


def _accumulate(model: Generator, made: Rollout, config: GeneratorPPO) -> Stats:
    """Gradients of the mean loss over all actions, batch by batch, of all processes."""
    count = len(made.advantages)
    totals = {"policy_loss": 0.0, "clip_fraction": 0.0}
    parts = zip(
        made.batches,
        torch.split(made.old_log_probs, made.sizes),
        torch.split(made.advantages, made.sizes),
        strict=True,
    )
    for (batch, old_log_probs, advantages), counts in processes.share(list(parts)):
        log_probs = token_log_probs(forward(model, batch).logits, batch.tokens, config.temperature)
        losses, outside = loss(log_probs, old_log_probs, advantages, config.clip_range)
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
    """What `_act` says of the actions of all batches; each process asks the model about its share."""
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
    """Of each action: log-probability, the reference's, entropy before it (n,); hidden states (n, d)."""
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


def _new_value(model: Generator, seed: int) -> ValueNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(f"value/{seed}").getrandbits(48))
        return ValueNetwork(hidden_size(model.config)).to(next(model.parameters()).device)


def _prompt_batches(
    prompts: Sequence[list[int]], batch_size: int, steps: int, seed: int
) -> list[list[int]]:
    """`steps` full batches of prompt indices, of similar length, going over the prompts as often as that takes."""
    batch_size = min(batch_size, len(prompts))
    epochs = -(-steps // (len(prompts) // batch_size))
    lengths = [len(prompt) for prompt in prompts]
    batches = [
        batch
        for epoch in range(epochs)
        for batch in length_buckets(lengths, batch_size, seed, epoch)
    ]
    return [batch for batch in batches if len(batch) == batch_size][:steps]

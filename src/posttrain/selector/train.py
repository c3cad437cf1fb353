"""The training of the selector, the same for supervised fine-tuning and every RL method.

One step takes a batch of questions, calls the method's `rollout` on it, and then makes `inner_epochs` passes of
`minibatches` optimizer steps each over the batch, on the method's `loss`. A method is a module of `methods` with
`Settings` and these two functions. `core.loop` loops over the steps and keeps the weights of the best validation reward.

All randomness of a step derives from (seed, step), so a run resumed from a checkpoint repeats exactly what the
uninterrupted one would have done.

Several processes (`posttrain.core.processes`) train on the same batches: they score a batch together and sample the same
actions, then each takes its share of a minibatch's passes and steps on the sum of all gradients. The result differs from
that of one process only by rounding and dropout masks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from posttrain.core import loop, processes
from posttrain.core.loop import History, Stats, rate_share
from posttrain.core.settings import Optimization
from posttrain.models.architecture import hidden_size
from posttrain.models.sharding import check_trainable
from posttrain.models.tokens import length_buckets
from posttrain.rollouts.critic import Critic, explained_variance
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.model import Selector, SelectorOutput, ValuedOutput
from posttrain.selector.policy import Batch, expected_reward, log_softmax
from posttrain.selector.predict import score_pools


class Method(Protocol):
    """A module of `selector/methods`: `rollout` adds to the batch, by sampling or not, what `loss` is computed from.

    act: scores the batch. The batch's `values` (N,), if `rollout` adds them, are those of a critic, which learns from its
    `returns` (N, samples) afterwards.
    """

    def rollout(
        self,
        act: Callable[[], ValuedOutput],
        batch: Batch,
        settings: Any,
        generator: torch.Generator,
    ) -> Batch: ...

    def loss(self, output: SelectorOutput, batch: Batch, settings: Any) -> tuple[Tensor, Stats]: ...


@dataclass(frozen=True)
class Pools:
    """N tokenised pools with the rewards and the reference log-policy of their candidates, (N, K) each."""

    pools: Sequence[TokenizedPool]
    rewards: Tensor
    reference: Tensor

    def __len__(self) -> int:
        return len(self.pools)


@dataclass(frozen=True)
class Schedule:
    """The batches of question indices, and the passes and optimizer steps per pass over each.

    patience: the training ends at a plateau of that many validations.
    """

    batches: Sequence[Sequence[int]]
    inner_epochs: int = 1
    minibatches: int = 1
    patience: int | None = None


@dataclass(frozen=True, kw_only=True)
class Run(loop.Run):
    """A training run of the selector.

    data: the training pools. batch_size: questions per forward pass; gradients are averaged over a minibatch, however many
    passes it takes.
    """

    data: Pools
    batch_size: int


def epochs_of_batches(
    pools: Sequence[TokenizedPool], batch_size: int, epochs: int, seed: int
) -> list[list[int]]:
    """Every question once per epoch, in batches of similar length."""
    lengths = [pool.length for pool in pools]
    return [
        batch
        for epoch in range(epochs)
        for batch in length_buckets(lengths, batch_size, seed, epoch)
    ]


def steps_of_batches(
    pools: Sequence[TokenizedPool], batch_size: int, steps: int, seed: int
) -> list[list[int]]:
    """`steps` full batches, repeating the questions as often as needed."""
    if len(pools) < batch_size:
        batch_size = len(pools)
    per_epoch = len(pools) // batch_size
    batches = epochs_of_batches(pools, batch_size, -(-steps // per_epoch), seed)
    return [batch for batch in batches if len(batch) == batch_size][:steps]


def train(run: Run, method: Method, settings: Optimization, schedule: Schedule) -> History:
    """Train the selector `run.model` in place; it ends with the weights of its best validation."""
    selector: Selector = run.model
    check_trainable(selector.backbone, "the selector")
    parameters = [p for p in selector.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    critic = Critic(hidden_size(selector.config), 2)

    def take_step(step: int) -> Stats:
        return _take_step(run, method, settings, schedule, optimizer, critic, step)

    steps = len(schedule.batches)
    state = {f"critic/{name}": tensor for name, tensor in critic.tensors().items()}
    return loop.train(
        run,
        {"model": selector},
        optimizer,
        settings,
        steps,
        take_step,
        patience=schedule.patience,
        state=state,
    )


def validate(selector: Selector, val: Pools, batch_size: int) -> Stats:
    """Mean reward of the best-scored candidate, and expected reward under the policy."""
    device = next(selector.parameters()).device
    logits, _ = score_pools(selector, val.pools, batch_size, device)
    chosen = logits.argmax(dim=1, keepdim=True)
    return {
        "reward": float(val.rewards.gather(1, chosen).mean()),
        "expected_reward": float(expected_reward(log_softmax(logits), val.rewards).mean()),
    }


def _take_step(
    run: Run,
    method: Method,
    settings: Any,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    critic: Critic,
    step: int,
) -> Stats:
    """The optimizer steps of one rollout batch; statistics are means over them."""
    selector, data = run.model, run.data
    rows = list(schedule.batches[step])
    generator = torch.Generator().manual_seed(random.Random(f"{run.seed}/{step}").getrandbits(48))
    own = f"/{processes.index()}" if processes.index() else ""
    torch.manual_seed(random.Random(f"dropout/{run.seed}/{step}{own}").getrandbits(48))
    pools = [data.pools[row] for row in rows]
    device = next(selector.parameters()).device

    seen: list[tuple[Tensor, Tensor]] = []

    def act() -> ValuedOutput:
        logits, states = score_pools(selector, pools, run.batch_size, device)
        seen.append((states, _confidence(logits)))
        return ValuedOutput(logits, states, critic(*seen[-1]))

    batch = {"rewards": data.rewards[rows], "reference": data.reference[rows]}
    batch = method.rollout(act, batch, settings, generator)
    totals: dict[str, list[float]] = {}
    if "values" in batch:
        returns = batch["returns"]
        values = batch["values"][:, None].expand_as(returns)
        totals["explained_variance"] = [explained_variance(values.flatten(), returns.flatten())]
        for drawn in returns.unbind(dim=1):
            critic.learn(*seen[-1], drawn)
    total = schedule.inner_epochs * schedule.minibatches
    for update in range(total):
        if update % schedule.minibatches == 0:
            order = torch.randperm(len(rows), generator=generator)
            minibatches = order.tensor_split(schedule.minibatches)
        chosen = minibatches[update % schedule.minibatches]
        rate = settings.learning_rate * rate_share(
            (step + update / total) / len(schedule.batches), settings.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        stats = _accumulate(run, method, settings, pools, batch, chosen)
        for name, value in stats.items():
            totals.setdefault(name, []).append(value)
        if stats.get("stop", 0.0) > 0:
            break
        parameters = optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        totals.setdefault("grad_norm", []).append(float(norm))
        optimizer.step()
    return {name: sum(values) / len(values) for name, values in totals.items()} | {
        "learning_rate": rate
    }


def _confidence(logits: Tensor) -> Tensor:
    """Of the policies of N pools, (N, 2): the largest probability, and that of the same choice twice."""
    policy = logits.softmax(dim=1)
    return torch.stack([policy.amax(dim=1), policy.square().sum(dim=1)], dim=1)


def _accumulate(
    run: Run,
    method: Method,
    settings: Any,
    pools: Sequence[TokenizedPool],
    batch: Batch,
    chosen: Tensor,
) -> Stats:
    """Accumulate the gradients of the mean loss over the chosen questions, in passes shared by all processes."""
    selector = run.model
    device = next(selector.parameters()).device
    # Rows of similar length in a pass need the least padding.
    rows = sorted(chosen.tolist(), key=lambda row: pools[row].length)
    totals: Stats = {}
    for part, counts in processes.share(processes.batches(rows, run.batch_size)):
        output = selector(collate([pools[row] for row in part]).to(device))
        selected = {name: tensor[part].to(device) for name, tensor in batch.items()}
        loss, stats = method.loss(output, selected, settings)
        share = len(part) / len(rows) if counts else 0.0
        (loss * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": float(loss.detach()), **stats}.items():
            totals[name] = totals.get(name, 0.0) + value * share
    processes.total_gradients(p for p in selector.parameters() if p.requires_grad)
    return processes.total_stats(totals)

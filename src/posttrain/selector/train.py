"""The training loop of the selector, the same for supervised fine-tuning and every RL method.

One step: take a batch of questions, let the algorithm make its rollout (`rollout`), then pass over the batch
`inner_epochs` times in `minibatches` optimizer steps on the algorithm's `loss`. An algorithm is a module with these two
functions: `sft`, `ppo`, `grpo`, `rloo`, `dpo`, `exact`.

All randomness of a step derives from (seed, step), so a run resumed from a checkpoint repeats exactly what the
uninterrupted one would have done. The weights returned are those of the best validation reward.

Several processes (`posttrain.core.processes`) train the same batches: each draws the same actions from scores that they
computed together, takes its share of a minibatch's passes, and steps on the sum of all gradients. What differs from one
process is rounding, and which dropout masks are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from posttrain.core import processes
from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.params import Optimization
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
from posttrain.models.sharding import check_trainable
from posttrain.models.tokens import length_buckets
from posttrain.selector.batch import TokenizedPool, collate
from posttrain.selector.model import Selector, SelectorOutput
from posttrain.selector.policy import Batch, expected_reward, log_softmax
from posttrain.selector.predict import score_pools


class Algorithm(Protocol):
    """A module of this package: how actions are drawn, and the loss on them."""

    def rollout(
        self,
        act: Callable[[], SelectorOutput],
        batch: Batch,
        config: Any,
        generator: torch.Generator,
    ) -> Batch: ...

    def loss(self, output: SelectorOutput, batch: Batch, config: Any) -> tuple[Tensor, Stats]: ...


@dataclass(frozen=True)
class Pools:
    """N tokenised pools and what is known of their candidates: rewards and reference log-policy, (N, K) each."""

    pools: Sequence[TokenizedPool]
    rewards: Tensor
    reference: Tensor

    def __len__(self) -> int:
        return len(self.pools)


@dataclass(frozen=True)
class Schedule:
    """What is trained when: batches of question indices, and how each is passed over."""

    batches: Sequence[Sequence[int]]
    inner_epochs: int = 1
    minibatches: int = 1


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
    """`steps` full batches, going over the questions as often as that takes."""
    if len(pools) < batch_size:
        batch_size = len(pools)
    per_epoch = len(pools) // batch_size
    batches = epochs_of_batches(pools, batch_size, -(-steps // per_epoch), seed)
    return [batch for batch in batches if len(batch) == batch_size][:steps]


def train(
    selector: Selector,
    algorithm: Algorithm,
    config: Optimization,
    schedule: Schedule,
    data: Pools,
    val: Pools,
    *,
    batch_size: int,
    seed: int,
    checkpoint: CheckpointFile,
    report: Callable[[int, int, History], None],
) -> History:
    """Train `selector` in place; it ends with the weights of its best validation.

    batch_size: questions per forward pass. Gradients are averaged over a minibatch, however many passes it takes.
    report: called after each step with (steps done, steps in all, history).
    """
    check_trainable(selector.backbone, "the selector")
    device = next(selector.parameters()).device
    parameters = {name: p for name, p in selector.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), weight_decay=config.weight_decay)
    steps = len(schedule.batches)
    evaluate_at = {round(steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    save_at = {max(1, round(steps * (i + 1) / 10)) for i in range(9)}
    history = History()
    best: dict[str, Tensor] = {}
    done = 0

    if (saved := checkpoint.load()) is not None:
        done = saved.state["done"]
        history = History(saved.state["train"], saved.state["val"])
        best = below(saved.tensors, "best")
        load_trainable_state(selector, below(saved.tensors, "model"))
        restore_optimizer(optimizer, parameters, saved.tensors)
    else:
        history.val.append({"step": 0.0, **validate(selector, val, batch_size)})
    report(done, steps, history)

    for step in range(done, steps):
        stats = _take_step(
            selector,
            algorithm,
            config,
            schedule,
            data,
            optimizer,
            parameters,
            step,
            batch_size,
            seed,
            device,
        )
        history.train.append({"step": float(step + 1), **stats})
        if step + 1 in evaluate_at:
            result = validate(selector, val, batch_size)
            history.val.append({"step": float(step + 1), **result})
            # The start is on the curve, but it is not a result of this training.
            if result["reward"] >= max(row["reward"] for row in history.val[1:]):
                best = trainable_state(selector)
        if step + 1 in save_at:
            tensors: dict[str, Tensor] = {f"model/{name}": p for name, p in parameters.items()}
            tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
            tensors |= optimizer_tensors(optimizer, parameters)
            state = {"done": step + 1, "train": history.train, "val": history.val}
            if processes.is_main():
                checkpoint.save(tensors, state)
        report(step + 1, steps, history)
    load_trainable_state(selector, best)
    return history


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
    selector: Selector,
    algorithm: Algorithm,
    config: Any,
    schedule: Schedule,
    data: Pools,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, torch.nn.Parameter],
    step: int,
    batch_size: int,
    seed: int,
    device: torch.device,
) -> Stats:
    """One rollout batch; statistics are means over its optimizer steps."""
    rows = list(schedule.batches[step])
    generator = torch.Generator().manual_seed(random.Random(f"{seed}/{step}").getrandbits(48))
    own = f"/{processes.index()}" if processes.index() else ""
    torch.manual_seed(random.Random(f"dropout/{seed}/{step}{own}").getrandbits(48))
    pools = [data.pools[row] for row in rows]

    def act() -> SelectorOutput:
        logits, values = score_pools(selector, pools, batch_size, device)
        return SelectorOutput(logits, values)

    batch = {"rewards": data.rewards[rows], "reference": data.reference[rows]}
    batch = algorithm.rollout(act, batch, config, generator)
    totals: dict[str, list[float]] = {}
    total = schedule.inner_epochs * schedule.minibatches
    for update in range(total):
        if update % schedule.minibatches == 0:
            order = torch.randperm(len(rows), generator=generator)
            minibatches = order.tensor_split(schedule.minibatches)
        chosen = minibatches[update % schedule.minibatches]
        rate = config.learning_rate * rate_share(
            (step + update / total) / len(schedule.batches), config.warmup
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        stats = _accumulate(selector, algorithm, config, pools, batch, chosen, batch_size, device)
        for name, value in stats.items():
            totals.setdefault(name, []).append(value)
        if stats.get("stop", 0.0) > 0:
            break
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm)
        totals.setdefault("grad_norm", []).append(float(norm))
        optimizer.step()
    return {name: sum(values) / len(values) for name, values in totals.items()} | {
        "learning_rate": rate
    }


def _accumulate(
    selector: Selector,
    algorithm: Algorithm,
    config: Any,
    pools: Sequence[TokenizedPool],
    batch: Batch,
    chosen: Tensor,
    batch_size: int,
    device: torch.device,
) -> Stats:
    """Gradients of the mean loss over the chosen questions, in passes of `batch_size`, of all processes."""
    # Passes of similar length waste fewest tokens on padding.
    rows = sorted(chosen.tolist(), key=lambda row: pools[row].length)
    totals: Stats = {}
    for part, counts in processes.share(processes.batches(rows, batch_size)):
        output = selector(collate([pools[row] for row in part]).to(device))
        selected = {name: tensor[part].to(device) for name, tensor in batch.items()}
        loss, stats = algorithm.loss(output, selected, config)
        share = len(part) / len(rows) if counts else 0.0
        (loss * share).backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": float(loss.detach()), **stats}.items():
            totals[name] = totals.get(name, 0.0) + value * share
    processes.total_gradients(p for p in selector.parameters() if p.requires_grad)
    return processes.total_stats(totals)

"""DPO on pairs of episodes, with the loss of `methods.dpo` on the policy's tokens alone.

    log policy(episode) = sum over the tokens t that the policy wrote of log policy(t | tokens before it in its row)

What the environment wrote is read, and its likelihood is in no term. An episode of several rows is the sum over them, which
TRL's trainer, for one prompt and one completion, cannot take; so the loop is that of `core.loop`. Optimizer step k takes the
k-th `pairs_per_step` pairs of the seeded order, in rounds. Dropout is off. Log-probabilities under the SFT policy are
computed once, from the weights that the training begins with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from posttrain.core import loop, processes
from posttrain.core.loop import History, Stats, evaluating, rate_share
from posttrain.generator.batches import collate, forward
from posttrain.generator.data import Row
from posttrain.generator.run import Run
from posttrain.models.architecture import disable_dropout
from posttrain.models.sharding import check_trainable
from posttrain.rollouts.writer import Generator

KINDS = ("chosen", "rejected")


def train(run: Run, settings: Any) -> History:
    """Train `run.model` in place on pairs of episodes; it ends with the weights of its best validation.

    `meta` is that of `methods.dpo`.
    """
    pairs, held_out = run.data.pairs("train"), run.data.pairs("held_out")
    model = run.model
    check_trainable(model, "the generator")
    disable_dropout(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    order = random.Random(f"dpo/{run.seed}").sample(range(len(pairs)), len(pairs))
    size = min(settings.pairs_per_step, len(pairs))
    seen = [pairs[index] for index in order[: settings.steps * size]]
    reference = pair_log_probs(model, seen, run.batch_size)
    before = pair_log_probs(model, held_out, run.batch_size)

    def take_step(step: int) -> Stats:
        totals: Stats = {}
        for epoch in range(settings.inner_epochs):
            first = (step * settings.inner_epochs + epoch) * size
            asked = [place % len(seen) for place in range(first, first + size)]
            progress = (step + epoch / settings.inner_epochs) / settings.steps
            rate = settings.learning_rate * rate_share(progress, settings.warmup)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            own = [seen[place] for place in asked]
            stats = _accumulate(model, own, reference[asked], settings.beta, run.batch_size)
            norm = nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            for name, number in {
                **stats,
                "grad_norm": float(norm),
                "learning_rate": rate,
            }.items():
                totals[name] = totals.get(name, 0.0) + number / settings.inner_epochs
        return totals

    history = loop.train(run, {"model": model}, optimizer, settings, settings.steps, take_step)
    if held_out:
        after = pair_log_probs(model, held_out, run.batch_size)
        history.meta = {
            "preference_accuracy_before": _accuracy(before),
            "preference_accuracy_after": _accuracy(after),
            "implicit_accuracy": _accuracy(after - before),
        }
    return history


def pair_log_probs(model: Generator, pairs: Sequence[Row], batch_size: int) -> Tensor:
    """log policy of both episodes of each pair, (N, 2): chosen, rejected."""
    found = torch.zeros(len(pairs), 2)
    parts = _passes(len(pairs), batch_size)
    with evaluating(model), torch.no_grad():
        for part, counts in processes.share(parts):
            sums = _log_probs(model, [pairs[place] for place in part])
            if counts:
                found[part] = sums.cpu()
    return processes.total(found)


def _passes(count: int, batch_size: int) -> list[list[int]]:
    """Pairs of one forward pass each, which reads two episodes of a pair."""
    places = list(range(count))
    return [places[start : start + batch_size] for start in range(0, count, batch_size)]


def _log_probs(model: Generator, pairs: Sequence[Row]) -> Tensor:
    """log policy of the episodes of each pair, (N, 2)."""
    episodes = [pair[kind] for pair in pairs for kind in KINDS]
    rows = [row for episode in episodes for row in episode]
    batch = collate(rows, next(model.parameters()).device)
    tokens = forward(model, batch).log_probs(batch.tokens)
    counts = [sum(sum(row.lengths) for row in episode) for episode in episodes]
    sums = [part.sum() for part in torch.split(tokens, counts)]
    return torch.stack(sums).view(len(pairs), len(KINDS))


def _accumulate(
    model: Generator, pairs: Sequence[Row], reference: Tensor, beta: float, batch_size: int
) -> Stats:
    """Add up the gradients of the mean loss over the pairs, pass by pass and over all processes."""
    names = ("loss", "reward_chosen", "reward_rejected", "margin", "pair_accuracy")
    totals = dict.fromkeys(names, 0.0)
    for part, counts in processes.share(_passes(len(pairs), batch_size)):
        own = _log_probs(model, [pairs[place] for place in part])
        rewards = beta * (own - reference[part].to(own.device))
        margins = rewards[:, 0] - rewards[:, 1]
        losses = -logsigmoid(margins)
        loss = losses.sum() / len(pairs) * counts
        loss.backward()  # type: ignore[no-untyped-call]
        sums = (losses, rewards[:, 0], rewards[:, 1], margins, (margins > 0).float())
        for name, values in zip(names, sums, strict=True):
            totals[name] += float(values.detach().sum()) / len(pairs) * counts
    processes.total_gradients(p for p in model.parameters() if p.requires_grad)
    return processes.total_stats(totals)


def _accuracy(log_probs: Tensor) -> float:
    """Share of the pairs (N, 2) whose chosen episode is the likelier one; ties count half."""
    difference = log_probs[:, 0] - log_probs[:, 1]
    return float(((difference.sign() + 1) / 2).mean())

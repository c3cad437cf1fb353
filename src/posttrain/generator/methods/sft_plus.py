"""SFT+, the control of the RL methods: SFT continued from where they start, for as many steps as they take.

loss = - mean over the batch's completion tokens of log policy(token | prompt, tokens before)

A step asks `prompts_per_step` questions, and makes `inner_epochs` passes of `minibatches` optimizer steps each over their
gold answers. It may take more optimizer steps than RL: what must be equal is the cost, and a control that learns little
from it would be a weak one. A gain of an RL method over SFT that SFT+ has as well is one of more training, not of RL.

All randomness of a step (minibatches, dropout) derives from (seed, step), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import model_validator
from torch import nn

from posttrain.core import loop, processes
from posttrain.core.loop import History, Stats, rate_share
from posttrain.core.schema import Positive
from posttrain.generator.batches import (
    collate,
    forward,
    in_batches,
    prompt_batches,
)
from posttrain.generator.data import IGNORED
from posttrain.generator.run import Run
from posttrain.generator.settings import RL
from posttrain.models.sharding import check_trainable
from posttrain.rollouts.episode import Row
from posttrain.rollouts.writer import Generator


class Settings(RL):
    """prompts: the gold answers of all questions, or of those with both right and wrong samples (mixed)."""

    prompts: Literal["all", "mixed"]
    prompts_per_step: Positive
    inner_epochs: Positive
    minibatches: Positive

    @model_validator(mode="after")
    def _minibatches_have_prompts(self) -> Settings:
        if self.minibatches > self.prompts_per_step:
            raise ValueError("minibatches must not exceed prompts_per_step")
        return self


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place on gold answers; it ends with the weights of its best validation."""
    model = run.model.train()
    check_trainable(model, "the generator")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=settings.weight_decay)
    answers = [
        Row.masked(row["input_ids"], [label != IGNORED for label in row["labels"]])
        for row in run.data.gold_answers(settings.prompts)
    ]
    asked = prompt_batches(
        [list(answer.prompt) for answer in answers],
        settings.prompts_per_step,
        settings.steps,
        run.seed,
    )

    def take_step(step: int) -> Stats:
        own = f"/{processes.index()}" if processes.index() else ""
        torch.manual_seed(random.Random(f"dropout/{run.seed}/{step}{own}").getrandbits(48))
        order = random.Random(f"{run.seed}/{step}")
        rows = [
            part
            for _ in range(settings.inner_epochs)
            for part in _split(order.sample(asked[step], len(asked[step])), settings.minibatches)
        ]
        totals: dict[str, list[float]] = {}
        for done, part in enumerate(rows):
            progress = (step + done / len(rows)) / settings.steps
            rate = settings.learning_rate * rate_share(progress, settings.warmup)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            stats = _accumulate(model, [answers[row] for row in part], run.batch_size)
            norm = nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            stats |= {"grad_norm": float(norm), "learning_rate": rate}
            for name, number in stats.items():
                totals.setdefault(name, []).append(number)
        return {name: sum(numbers) / len(numbers) for name, numbers in totals.items()}

    return loop.train(run, {"model": model}, optimizer, settings, settings.steps, take_step)


def _split(rows: Sequence[int], count: int) -> list[Sequence[int]]:
    """The rows in `count` parts that differ by at most one row; fewer parts if there are fewer rows."""
    return [part for start in range(count) if (part := rows[start::count])]


def _accumulate(model: Generator, rows: Sequence[Row], batch_size: int) -> Stats:
    """Add up the gradients of the mean loss over all actions, pass by pass and over all processes."""
    device = next(model.parameters()).device
    count, total = sum(sum(row.lengths) for row in rows), 0.0
    for part, counts in processes.share(in_batches(model, rows, batch_size)):
        batch = collate(part, device)
        log_probs = forward(model, batch).log_probs(batch.tokens)
        loss = -log_probs.sum() / count * counts
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    processes.total_gradients(p for p in model.parameters() if p.requires_grad)
    return processes.total_stats({"loss": total})

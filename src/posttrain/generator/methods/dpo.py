"""DPO (Rafailov et al. 2023) on preference pairs: TRL's DPOTrainer.

margin = beta ((log policy(chosen) - log SFT(chosen)) - (log policy(rejected) - log SFT(rejected)))
loss   = - mean over the batch's pairs of log sigmoid(margin)

Training sees the first steps * pairs_per_step pairs of a seeded order, `inner_epochs` times: like the other methods, it
takes steps * inner_epochs optimizer steps. Their log-probabilities under the SFT policy are computed once, before the first
step, and no reference model is kept. With too few pairs for that, each is seen as often as it takes, and several processes
leave out the last of each round that do not fill a pass of all of them.

Pairs of episodes of an environment are trained on by `generator.preferred`, with the same loss.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor
from trl.trainer import dpo_trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from posttrain.core import processes
from posttrain.core.loop import History, evaluating
from posttrain.core.schema import Positive, Rate
from posttrain.generator import preferred, shared, trl
from posttrain.generator.data import IGNORED, Row
from posttrain.generator.run import Run
from posttrain.generator.settings import RL
from posttrain.models import head
from posttrain.models.tokens import pad


class Settings(RL):
    pairs_per_step: Positive
    inner_epochs: Positive
    beta: Rate


class PairLogProbs(NamedTuple):
    """log policy(completion | prompt) of each pair's completions, (N,) each."""

    chosen: Tensor
    rejected: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the pairs whose chosen completion is the likelier one; ties count half."""
        difference = self.chosen - self.rejected
        return float(((difference.sign() + 1) / 2).mean())


def _hash_trained(model: Any) -> str:
    total = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            total.update(save({name: parameter.detach().cpu().contiguous()}))
    return total.hexdigest()


# TRL names its file of the reference's log-probabilities after all tensors of the model, of which a process may have
# parts only; those that are not trained are the same in all runs that could find the file.
dpo_trainer.hash_module = _hash_trained  # type: ignore[attr-defined, assignment]


class Trainer(trl.Quiet, DPOTrainer):
    """TRL's, on rows that are token ids already, and with the prompt of a pair read once."""

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        inherited: Any = super()
        return inherited.compute_ref_log_probs(self._reading_once(model, inputs), inputs)

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], *others: Any) -> Any:
        inherited: Any = super()
        return inherited._compute_loss(self._reading_once(model, inputs), inputs, *others)

    def _reading_once(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        once = shared.reads_once(self.model, inputs["input_ids"].shape[1])
        return partial(_scores_of_pairs, model) if once else model


def _scores_of_pairs(
    model: Any, *, input_ids: Tensor, labels: Tensor, **others: Any
) -> FusedCausalLMOutput:
    """What TRL asks of `model(...)`: scores (2 N, L - 1) of the labelled tokens of N chosen rows and, after them, N rejected
    ones, padded on the right.
    """
    count = len(input_ids) // 2
    # Of each pair first the chosen row, then the rejected one.
    order = torch.arange(2 * count, device=input_ids.device).view(2, count).T.flatten()
    written = (labels != IGNORED)[order]
    starts = written[::2].int().argmax(dim=1).tolist()  # the prompts' lengths
    groups = [shared.Group(2, 0, start) for start in starts]
    scores = shared.scores(model, input_ids[order], written, groups)
    back = order.argsort()
    # The score of a token stands where the one before it is read.
    return FusedCausalLMOutput(**{name: values[back, 1:] for name, values in scores.items()})


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place on preference pairs; it ends with the weights of its best validation.

    `meta` tells what the training did to pairs that it has not seen: `preference_accuracy_before` and `_after`, `_after`
    for the weights kept, and `implicit_accuracy`, the share of those pairs whose margin is positive. Without held-out pairs
    it tells nothing.
    """
    if run.plays:
        return preferred.train(run, settings)
    rows, held_out = run.data.pairs("train"), run.data.pairs("held_out")
    order = random.Random(f"dpo/{run.seed}").sample(range(len(rows)), len(rows))
    pairs_per_step = trl.at_most(settings.pairs_per_step, len(rows))
    seen = [rows[index] for index in order[: settings.steps * pairs_per_step]]
    size, count = trl.passes(pairs_per_step, run.batch_size, "generator.dpo.pairs_per_step")
    before = pair_log_probs(run.model, held_out, run.batch_size)
    watch = trl.Watch(run, "reward", settings.evaluations, settings.inner_epochs)
    trainer = Trainer(
        run.model,
        args=DPOConfig(
            **trl.common_arguments(run, settings),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            max_steps=settings.steps * settings.inner_epochs,
            dataloader_drop_last=True,
            beta=settings.beta,
            loss_type=["sigmoid"],
            max_length=None,
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=_dataset(seen, run.work),
        processing_class=run.tokenizer,
        callbacks=[watch],
    )
    history = trl.train(trainer, watch)
    if not held_out:
        return history
    after = pair_log_probs(run.model, held_out, run.batch_size)
    margin = PairLogProbs(after.chosen - before.chosen, after.rejected - before.rejected)
    history.meta = {
        "preference_accuracy_before": before.accuracy,
        "preference_accuracy_after": after.accuracy,
        "implicit_accuracy": margin.accuracy,
    }
    return history


def _dataset(rows: Sequence[Row], work: Path) -> Dataset:
    """The rows as TRL wants them. Where several processes are to find the reference's log-probabilities that it keeps
    beside them, they must lie in a folder that all know.
    """
    if processes.count() == 1:
        return Dataset.from_list(list(rows))
    if processes.is_main():
        Dataset.from_list(list(rows)).save_to_disk(work / "pairs")
    processes.wait()
    return Dataset.load_from_disk(work / "pairs")


def pair_log_probs(model: Any, rows: Sequence[Row], batch_size: int) -> PairLogProbs:
    """Log-probabilities of both completions of each pair, summed over their tokens."""
    sequences = [
        (row["prompt_ids"], row[kind]) for kind in ("chosen_ids", "rejected_ids") for row in rows
    ]
    # Passes of similar length waste fewest tokens on padding.
    order = sorted(range(len(sequences)), key=lambda index: sum(map(len, sequences[index])))
    sums = torch.zeros(len(sequences))
    with evaluating(model):
        for part, counts in processes.share(processes.batches(order, 2 * batch_size)):
            found = _log_probs(model, [sequences[index] for index in part])
            if counts:
                sums[part] = found
    sums = processes.total(sums)
    return PairLogProbs(sums[: len(rows)], sums[len(rows) :])


@torch.no_grad()
def _log_probs(model: Any, sequences: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Sum of the completion's token log-probabilities for each (prompt ids, completion ids)."""
    device = next(model.parameters()).device
    ids, mask = pad([prompt + completion for prompt, completion in sequences])
    before = torch.zeros_like(mask)
    for row, (prompt, answer) in enumerate(sequences):
        before[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
    ids, mask, before = ids.to(device), mask.to(device), before.to(device)
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    _, scores = head.read(
        inner,
        lambda: model(input_ids=ids, attention_mask=mask.long()),
        lambda states: states[before],
        model,
    )
    log_probs = scores.log_probs(ids.roll(-1, dims=1)[before])
    sums = torch.zeros(before.shape, device=device).masked_scatter(before, log_probs).sum(dim=1)
    return sums.cpu()

"""DPO (Rafailov et al. 2023) on preference pairs: TRL's DPOTrainer.

margin = beta ((log policy(chosen) - log SFT(chosen)) - (log policy(rejected) - log SFT(rejected)))
loss   = - mean over the batch's pairs of log sigmoid(margin)

Training sees the first steps * pairs_per_step pairs of a seeded order, each as often as that takes, so their
log-probabilities under the SFT policy are computed once, before the first step, and no reference model is kept. With
too few pairs for that, several processes leave out the last of each round that do not fill a pass of all of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer import dpo_trainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from posttrain.core import processes
from posttrain.core.params import GeneratorDPO
from posttrain.core.training import History, evaluating
from posttrain.generator.data import Row
from posttrain.generator.trl import (
    Evaluate,
    Quiet,
    Report,
    Watch,
    common_arguments,
    passes,
    run,
)
from posttrain.models.tokens import pad

BEST_BY = "reward"


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


class Trainer(Quiet, DPOTrainer):
    """TRL's, on rows that are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        return dataset


def train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: GeneratorDPO,
    *,
    batch_size: int,
    seed: int,
    work: Path,
    evaluate: Evaluate,
    report: Report,
) -> tuple[History, dict[str, float]]:
    """Train `model` in place on rows of `data.pair_rows`; it ends with the weights of its best validation.

    Beside the curves, what the training did to pairs it has not seen: `preference_accuracy_before` and `_after`,
    `_after` for the weights kept, and `implicit_accuracy`, the share of those pairs whose margin is positive.
    batch_size: pairs per pass.
    work: folder of this run's checkpoints; the caller removes it when the result is in place.
    """
    order = random.Random(f"dpo/{seed}").sample(range(len(rows)), len(rows))
    pairs_per_step = min(config.pairs_per_step, len(rows))
    seen = [rows[index] for index in order[: config.steps * pairs_per_step]]
    size, count = passes(pairs_per_step, batch_size, "rl.generator.dpo.pairs_per_step")
    before = pair_log_probs(model, held_out, batch_size)
    watch = Watch(model, evaluate, BEST_BY, config.evaluations, report)
    trainer = Trainer(
        model,
        args=DPOConfig(
            **common_arguments(config, model, seed, work),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            max_steps=config.steps,
            dataloader_drop_last=True,
            beta=config.beta,
            loss_type=["sigmoid"],
            max_length=None,
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=_dataset(seen, work),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    history = run(trainer, watch, work)
    after = pair_log_probs(model, held_out, batch_size)
    margin = PairLogProbs(after.chosen - before.chosen, after.rejected - before.rejected)
    return history, {
        "preference_accuracy_before": before.accuracy,
        "preference_accuracy_after": after.accuracy,
        "implicit_accuracy": margin.accuracy,
    }


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
    ids, mask = ids.to(device), mask.to(device)
    keep = max(len(completion) for _, completion in sequences)
    # The last positions hold every completion, the padding behind the shorter ones included.
    keep += ids.shape[1] - min(len(prompt) + len(completion) for prompt, completion in sequences)
    keep = min(keep, ids.shape[1] - 1)
    output = model(input_ids=ids, attention_mask=mask.long(), logits_to_keep=keep + 1)
    log_policy = output.logits[:, :-1].float().log_softmax(dim=-1)
    tokens = log_policy.gather(2, ids[:, -keep:, None])[..., 0]
    completion = torch.zeros_like(mask)
    for row, (prompt, answer) in enumerate(sequences):
        completion[row, len(prompt) : len(prompt) + len(answer)] = True
    sums: Tensor = (tokens * completion[:, -keep:]).sum(dim=1)
    return sums.cpu()

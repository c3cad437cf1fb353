"""Supervised fine-tuning on the gold answers: TRL's SFTTrainer.

loss = - mean over the batch's completion tokens of log policy(token | prompt, tokens before)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from posttrain.core import processes
from posttrain.core.loop import History
from posttrain.core.settings import SFT
from posttrain.generator import trl
from posttrain.generator.data import IGNORED, Row
from posttrain.generator.run import Run
from posttrain.generator.settings import OfParts


class Settings(OfParts, SFT):
    """Those of `SFT`, and `parts`."""


# Fills up the last batch of an epoch, so that all processes have the same number of rows; no label counts.
EMPTY: Row = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}


class Order(Sampler[int]):
    """The order of the rows in an epoch, in batches of similar length: the same for any number of processes, and after a
    resume, which TRL's own is not beyond the first epoch.

    The empty row, the last of the data, follows as often as it takes to fill the last batch with a multiple of `multiple`.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, multiple: int = 1
    ) -> None:
        self.seed, self.missing = seed, -len(lengths) % multiple
        self.generator = torch.Generator()
        self.rows = LengthGroupedSampler(
            batch_size, lengths=list(lengths), generator=self.generator
        )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        trl.seed_epoch(self.generator, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.rows) + self.missing

    def __iter__(self) -> Iterator[int]:
        yield from [*self.rows, *[len(self.rows)] * self.missing]


class Trainer(trl.Quiet, SFTTrainer):
    """TRL's trainer, with the same batches for any number of processes."""

    args: Any

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        many, own = processes.count(), int(self.args.train_batch_size)
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batch_size = own * self.args.gradient_accumulation_steps * many
        if many == 1:
            return Order(lengths, batch_size, self.args.seed)
        return Order(lengths[:-1], batch_size, self.args.seed, own * many)


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place on the gold answers; it ends with the weights of its best validation."""
    rows = run.data.gold_answers()
    watch = trl.Watch(run, "execution_accuracy", settings.evaluations, patience=settings.patience)
    batch = run.batch_size * run.accumulation
    size, count = trl.passes(batch, run.batch_size, "batch_size * accumulation")
    trainer = Trainer(
        run.model,
        args=SFTConfig(
            **trl.common_arguments(run, settings),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            num_train_epochs=settings.epochs,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows if processes.count() == 1 else [*rows, EMPTY]),
        processing_class=run.tokenizer,
        callbacks=[watch],
    )
    return trl.train(trainer, watch)

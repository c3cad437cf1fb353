"""Supervised fine-tuning on the gold answers: TRL's SFTTrainer.

loss = - mean over the batch's completion tokens of log policy(token | prompt, tokens before)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from posttrain.core import processes
from posttrain.core.loop import History
from posttrain.core.schema import Positive
from posttrain.core.settings import Optimization
from posttrain.generator import trl
from posttrain.generator.data import IGNORED, Row
from posttrain.generator.run import Run


class Settings(Optimization):
    epochs: Positive


# Fills up the last batch of an epoch, so that all processes have the same number of rows; no label counts.
EMPTY: Row = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}


class Order(Sampler[int]):
    """The order of the rows on several processes, the same on all: that of a single one, in batches of similar length.

    The empty row, the last of the data, follows as often as it takes to fill the last batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, multiple: int) -> None:
        self.rows = LengthGroupedSampler(batch_size, lengths=list(lengths))
        self.missing = -len(lengths) % multiple

    def __len__(self) -> int:
        return len(self.rows) + self.missing

    def __iter__(self) -> Iterator[int]:
        order = broadcast_object_list([list(self.rows)])[0]
        yield from [*order, *[len(order)] * self.missing]


class Trainer(trl.Quiet, SFTTrainer):
    """TRL's trainer, with the same batches for any number of processes."""

    args: Any

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        many = processes.count()
        if many == 1:
            inherited: Any = super()
            return inherited._get_train_sampler(train_dataset)  # type: ignore[no-any-return]
        own: int = self.args.train_batch_size
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batch_size = own * self.args.gradient_accumulation_steps * many
        return Order(lengths[:-1], batch_size, own * many)


def train(run: Run, settings: Settings) -> History:
    """Train `run.model` in place on the gold answers; it ends with the weights of its best validation."""
    rows = run.data.gold_answers()
    watch = trl.Watch(run, "execution_accuracy", settings.evaluations)
    batch = run.batch_size * run.accumulation
    size, count = trl.passes(batch, run.batch_size, "batch_size * accumulation")
    trainer = Trainer(
        run.model,
        args=SFTConfig(
            **trl.common_arguments(run, settings),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            num_train_epochs=settings.epochs,
            train_sampling_strategy="group_by_length",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(rows if processes.count() == 1 else [*rows, EMPTY]),
        processing_class=run.tokenizer,
        callbacks=[watch],
    )
    return trl.train(trainer, watch)

"""Supervised fine-tuning on the gold answers: TRL's SFTTrainer.

loss = - mean over the batch's completion tokens of log policy(token | prompt, tokens before)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from posttrain.core import processes
from posttrain.core.params import GeneratorSFT
from posttrain.core.training import History
from posttrain.generator.data import IGNORED, Row
from posttrain.generator.trl import (
    Evaluate,
    Quiet,
    Report,
    Watch,
    common_arguments,
    passes,
    run,
)

BEST_BY = "execution_accuracy"


# What fills the last batch of an epoch up until each process has as many rows: nothing to learn, nothing counted.
EMPTY: Row = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED]}


class Order(Sampler[int]):
    """The order of one process for several: the rows in batches of similar length, the same on all processes, and
    behind them the empty row, which comes last in the data, as often as it takes.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, multiple: int) -> None:
        self.rows = LengthGroupedSampler(batch_size, lengths=list(lengths))
        self.missing = -len(lengths) % multiple

    def __len__(self) -> int:
        return len(self.rows) + self.missing

    def __iter__(self) -> Iterator[int]:
        order = broadcast_object_list([list(self.rows)])[0]
        yield from [*order, *[len(order)] * self.missing]


class Trainer(Quiet, SFTTrainer):
    """TRL's, quiet, with the batches of one process whatever the number of processes."""

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


def train(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    config: GeneratorSFT,
    *,
    batch_size: int,
    accumulation: int,
    seed: int,
    work: Path,
    evaluate: Evaluate,
    report: Report,
) -> History:
    """Train `model` in place on rows of `data.prompt_completion_rows`; it ends with the weights of its best validation.

    batch_size, accumulation: rows per pass and passes per optimizer step.
    work: folder of this run's checkpoints; the caller removes it when the result is in place.
    """
    watch = Watch(model, evaluate, BEST_BY, config.evaluations, report)
    size, count = passes(batch_size * accumulation, batch_size, "batch_size * accumulation")
    data = list(rows) if processes.count() == 1 else [*rows, EMPTY]
    trainer = Trainer(
        model,
        args=SFTConfig(
            **common_arguments(config, model, seed, work),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=count,
            num_train_epochs=config.epochs,
            train_sampling_strategy="group_by_length",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    return run(trainer, watch, work)

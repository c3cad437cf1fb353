"""Supervised fine-tuning on the gold answers: TRL's SFTTrainer.

loss = - mean over the batch's completion tokens of log policy(token | prompt, tokens before)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from posttrain.generator.data import Row
from posttrain.generator.trl import Evaluate, Quiet, Report, Watch, common_arguments, run
from posttrain.params import GeneratorSFT
from posttrain.training import History

BEST_BY = "execution_accuracy"


class Trainer(Quiet, SFTTrainer):
    """TRL's, quiet."""


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
    trainer = Trainer(
        model,
        args=SFTConfig(
            **common_arguments(config, model, seed, work),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            num_train_epochs=config.epochs,
            train_sampling_strategy="group_by_length",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=tokenizer,
        callbacks=[watch],
    )
    return run(trainer, watch, work)

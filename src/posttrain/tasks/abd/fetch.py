"""Fetching the questions into one folder: generated, or CRUXEval's file for test beside generated ones to train on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.tasks import SPLITS, read_options
from posttrain.tasks.abd.cruxeval import PATH, iterate_rows
from posttrain.tasks.abd.options import Options
from posttrain.tasks.abd.sample import generate
from posttrain.tasks.fetching import fetch_dataset


def fetch(params: Params, directory: Path) -> None:
    """Put the data set that `params` chooses into `directory`."""
    steps, dataset = read_options(params, Options).steps, params.selected_dataset
    for split in ("train", "val"):
        if getattr(dataset, split) is None:
            raise UserError(
                f"params.yaml: datasets.{params.dataset}.{split}: missing; these questions are generated, so their "
                "number is needed"
            )
    fetch_dataset(
        params, directory, (PATH,), generate=partial(_generate, steps), check=iterate_rows
    )
    if not isinstance(dataset, GeneratedDataset):
        sizes = {"train": dataset.train or 0, "val": dataset.val or 0}
        for split, rows in generate(dataset.seed, sizes, steps).items():
            write_jsonl(directory / f"{split}.jsonl", rows)


def _generate(steps: int, dataset: GeneratedDataset, directory: Path) -> None:
    splits = generate(dataset.seed, {split: getattr(dataset, split) for split in SPLITS}, steps)
    with atomic_directory(directory) as output:
        for split, rows in splits.items():
            write_jsonl(output / f"{split}.jsonl", rows)

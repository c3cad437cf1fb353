"""Fetching the questions into one folder: generated, or MBPP's file, copied or downloaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.tasks import SPLITS, read_options
from posttrain.tasks.ded.mbpp import PATH, iterate_rows
from posttrain.tasks.ded.options import Options
from posttrain.tasks.ded.sample import generate
from posttrain.tasks.fetching import fetch_dataset


def fetch(params: Params, directory: Path) -> None:
    """Put the data set that `params` chooses into `directory`: generated, copied or downloaded."""
    write = partial(_generate, read_options(params, Options))
    fetch_dataset(params, directory, (PATH,), generate=write, check=iterate_rows)


def _generate(options: Options, dataset: GeneratedDataset, directory: Path) -> None:
    splits = generate(dataset.seed, {split: getattr(dataset, split) for split in SPLITS}, options)
    with atomic_directory(directory) as output:
        for split, rows in splits.items():
            write_jsonl(output / f"{split}.jsonl", rows)

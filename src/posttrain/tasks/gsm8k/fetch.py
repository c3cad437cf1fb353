"""Fetching a GSM8K data set, train.jsonl and test.jsonl, into one folder: generated, copied, or downloaded."""

from __future__ import annotations

from pathlib import Path

from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.tasks import read_options
from posttrain.tasks.fetching import fetch_dataset
from posttrain.tasks.gsm8k.load import FILES, iterate_rows
from posttrain.tasks.gsm8k.options import Options
from posttrain.tasks.gsm8k.sample import generate

PATHS = tuple(f"grade_school_math/data/{name}" for name in FILES.values())


def fetch(params: Params, directory: Path) -> None:
    """Put the data set that `params` chooses into `directory`: generated, copied or downloaded."""
    read_options(params, Options)
    fetch_dataset(params, directory, PATHS, generate=_generate, check=iterate_rows)


def _generate(dataset: GeneratedDataset, directory: Path) -> None:
    sizes = {"train": dataset.train + dataset.val, "test": dataset.test}
    splits = generate(dataset.seed, sizes)
    with atomic_directory(directory) as output:
        for split, name in FILES.items():
            write_jsonl(output / name, splits[split])

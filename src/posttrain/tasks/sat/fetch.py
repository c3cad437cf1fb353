"""Fetching formulas, train.jsonl, val.jsonl and test.jsonl, into one folder: generated, copied or downloaded."""

from __future__ import annotations

from pathlib import Path

from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.tasks import read_options
from posttrain.tasks.fetching import fetch_dataset
from posttrain.tasks.sat.load import FILES, iterate_rows
from posttrain.tasks.sat.options import Options, operators_of
from posttrain.tasks.sat.sample import generate


def fetch(params: Params, directory: Path) -> None:
    """Put the data set that `params` chooses into `directory`."""
    operators_of(params)  # options that are wrong end the stage before any work

    def generated(dataset: GeneratedDataset, directory: Path) -> None:
        sizes = {split: getattr(dataset, split) for split in FILES}
        splits = generate(dataset.seed, sizes, read_options(params, Options))
        with atomic_directory(directory) as output:
            for split, name in FILES.items():
                write_jsonl(output / name, splits[split])

    fetch_dataset(params, directory, [*FILES.values()], generate=generated, check=iterate_rows)

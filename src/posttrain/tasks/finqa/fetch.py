"""Fetching a FinQA data set into one folder, in its original layout: generated, copied, or downloaded and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from posttrain.core.files import atomic_directory, write_json_array
from posttrain.core.params import GeneratedDataset, Params
from posttrain.core.schema import Fraction, Section
from posttrain.tasks import read_options
from posttrain.tasks.fetching import fetch_dataset
from posttrain.tasks.finqa.load import SPLIT_FILES, iterate_split
from posttrain.tasks.finqa.sample import UNSEEN_SHARE, iterate_splits

PATHS = tuple(f"dataset/{name}" for name in SPLIT_FILES.values())


class GeneratedOptions(Section):
    """unseen: the probability that a question is of a kind that `pocket` was not pretrained on."""

    unseen: Fraction


def fetch(params: Params, directory: Path) -> None:
    """Put the data set that `params` chooses into `directory`: generated, copied or downloaded."""
    read_options(
        params, GeneratedOptions if params.selected_dataset.source == "generated" else Section
    )
    fetch_dataset(params, directory, PATHS, generate=_generate, check=iterate_split)


def _generate(dataset: GeneratedDataset, directory: Path) -> None:
    sizes = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    unseen = GeneratedOptions.model_validate(dataset.options).unseen
    fetch_generated(directory, dataset.seed, sizes, unseen)


def fetch_generated(
    output: Path, seed: int, sizes: Mapping[str, int], unseen: float = UNSEEN_SHARE
) -> None:
    """Generate `sizes` rows per split (`train`, `val`, `test`) into `output`; `unseen` as in `generate`."""
    splits = iterate_splits(seed, sizes, unseen)
    with atomic_directory(output) as directory:
        for split, name in SPLIT_FILES.items():
            write_json_array(directory / name, splits[split])

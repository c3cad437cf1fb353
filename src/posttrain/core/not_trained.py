"""Policies that could not be trained because their method had nothing to train on.

A method raises `NothingToTrain`, for example DPO without preference pairs. The run goes on: `not_trained.json`, with the
reason, then stands in the place of the policy's model, curves and predictions; the comparison names it without numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.manifest import write_manifest

NOT_TRAINED = "not_trained.json"


class NothingToTrain(Exception):
    """The data has nothing that a method could learn from; the message says what is missing."""


def write_not_trained(
    directory: Path, reason: str, manifest: Mapping[str, Any] | None = None
) -> None:
    """Write a folder that holds the reason, and the manifest if there is one, in place of a result."""
    with atomic_directory(directory) as output:
        write_json(output / NOT_TRAINED, {"reason": reason})
        if manifest is not None:
            write_manifest(output, manifest)


def why_not_trained(directory: Path) -> str | None:
    """The reason in a folder of `write_not_trained`; None for any other folder."""
    path = directory / NOT_TRAINED
    return str(read_json(path)["reason"]) if path.is_file() else None

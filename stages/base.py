"""Check the model's entry against the model, and write pointers to it and the untrained policy of each family.

python stages/base.py

models/base names the model: a local folder, or a hub name with a pinned revision. Weights of a hub model are loaded by
the first stage that needs them. The model of a GGUF file, on disk, on the hub or in a Python package, is converted here,
and models/base holds it.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from posttrain.core.files import atomic_directory
from posttrain.core.inputs import named_folder
from posttrain.core.manifest import build_manifest, write_manifest, write_model_manifest
from posttrain.core.params import FAMILIES, UNTRAINED, Model, Params
from posttrain.core.stage import run
from posttrain.models import gguf
from posttrain.models.check import check_model
from posttrain.models.load import BASE, CONVERTED, place, write_base
from posttrain.rollouts import writer
from posttrain.selector import model as selector


def main(params: Params) -> None:
    entry = params.selected_model
    converted = gguf.converted(entry) if entry.is_gguf else None
    if entry.source == "path" and converted is None:
        named_folder(entry.name, f"models.{params.model}.name")
    config = check_model(entry, converted)
    sections = params.sections("model")
    with atomic_directory(BASE) as directory:
        base = write_to(directory, entry, converted)
        write_manifest(directory, build_manifest("base", sections, []))
    selectors, generators = (Path("models") / family / UNTRAINED for family in FAMILIES)
    with atomic_directory(selectors) as selecting, atomic_directory(generators) as writing:
        for seed in params.seeds:
            manifest = build_manifest("base", sections, [BASE], policy=UNTRAINED, seed=seed)
            selector.save_untrained(selecting / str(seed), config, base, seed)
            writer.save_untrained(writing / str(seed), base)
            for folder in (selecting, writing):
                write_model_manifest(folder / str(seed), manifest)


def write_to(directory: Path, entry: Model, converted: Path | None) -> dict[str, Any]:
    """Write `base.json`, and a converted model beside it."""
    if converted is None:
        return write_base(
            directory, entry.source, str(place(entry)[0]), entry.revision, entry.prompt
        )
    shutil.copytree(converted, directory / CONVERTED, copy_function=link_or_copy)
    file = gguf.find(entry)
    made_from = {"file": entry.file or file.name, "sha256": gguf.sha256_of(file)}
    return write_base(directory, entry.source, entry.name, entry.revision, entry.prompt, made_from)


def link_or_copy(source: str, target: str) -> None:
    """A second name of a file, which takes no room on the disk, or a copy where the disk has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    run(main)

"""Check the model's entry against the model, and write pointers to it and the untrained policy of each family.

python stages/base.py

models/base names the model: a local folder, or a hub name with a pinned revision. Weights of a hub model are loaded by
the first stage that needs them.
"""

from pathlib import Path

from posttrain.core.files import atomic_directory
from posttrain.core.inputs import named_folder
from posttrain.core.manifest import build_manifest, write_manifest, write_model_manifest
from posttrain.core.params import FAMILIES, UNTRAINED, Params
from posttrain.core.stage import run
from posttrain.models.check import check_model
from posttrain.models.load import BASE, place, write_base
from posttrain.rollouts import writer
from posttrain.selector import model as selector


def main(params: Params) -> None:
    entry = params.selected_model
    if entry.source == "path":
        named_folder(entry.name, f"models.{params.model}.name")
    config = check_model(entry)
    sections = params.sections("model")
    with atomic_directory(BASE) as directory:
        base = write_base(
            directory, entry.source, str(place(entry)[0]), entry.revision, entry.prompt
        )
        write_manifest(directory, build_manifest("base", sections, []))
    selectors, generators = (Path("models") / family / UNTRAINED for family in FAMILIES)
    with atomic_directory(selectors) as selecting, atomic_directory(generators) as writing:
        for seed in params.seeds:
            manifest = build_manifest("base", sections, [BASE], policy=UNTRAINED, seed=seed)
            selector.save_untrained(selecting / str(seed), config, base, seed)
            writer.save_untrained(writing / str(seed), base)
            for folder in (selecting, writing):
                write_model_manifest(folder / str(seed), manifest)


if __name__ == "__main__":
    run(main)

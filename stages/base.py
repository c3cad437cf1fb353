"""Point to the base model that is trained further: a local folder, or a hub name at a pinned revision.

python stages/base.py
"""

from pathlib import Path

from posttrain.core.files import atomic_directory, write_json
from posttrain.core.manifest import build_manifest
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.models.load import check_lengths, load_config, write_base

OUTPUT = Path("models/base")


def main(params: Params) -> None:
    entry = params.selected_model
    config = load_config(Path(entry.name) if entry.source == "path" else entry.name, entry.revision)
    check_lengths(config, entry.max_prompt_tokens, entry.max_candidate_tokens)
    with atomic_directory(OUTPUT) as directory:
        base = write_base(directory, entry.source, entry.name, entry.revision)
        write_json(directory / "manifest.json", build_manifest("base", base, []))


if __name__ == "__main__":
    run(main)

"""Look at the folders that params.yaml names: write to data/inputs a digest of the data set's files and of the model's.

python stages/inputs.py

It runs each time, as DVC does not look there; a file that has not changed is not read.
"""

from pathlib import Path

from posttrain.core.files import atomic_directory, write_json
from posttrain.core.inputs import hash_inputs
from posttrain.core.params import Params
from posttrain.core.stage import run


def main(params: Params) -> None:
    digests = hash_inputs(params)
    with atomic_directory(Path("data/inputs")) as directory:
        for name, files in digests.items():
            write_json(directory / f"{name}.json", files)


if __name__ == "__main__":
    run(main)

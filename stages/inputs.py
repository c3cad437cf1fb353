"""Look at what DVC does not, and write to data/inputs

    dataset.json, model.json    a digest of the files of the data set's folder and of the model's, which params.yaml names
    entries                     the data set's entry and the model's, without their settings
    settings                    these settings by the part of the pipeline that reads them, so that another learning rate of
                                one method reruns that method alone
    tuning.json                 a copy of metrics/tuning.json, or {} where there is none

python stages/inputs.py

It runs each time; a file of a folder that has not changed is not read.
"""

from pathlib import Path

from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.inputs import hash_inputs, settings_by_part
from posttrain.core.params import Params
from posttrain.core.stage import run

TUNING = Path("metrics/tuning.json")


def main(params: Params) -> None:
    digests = hash_inputs(params)
    with atomic_directory(Path("data/inputs")) as directory:
        for name, files in digests.items():
            write_json(directory / f"{name}.json", files)
        parts = {
            f"entries/{name}": entry for name, entry in params.sections("dataset", "model").items()
        }
        parts |= {f"settings/{part}": found for part, found in settings_by_part(params).items()}
        for part, values in parts.items():
            file = directory / f"{part}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, values)
        record = read_json(TUNING) if TUNING.is_file() else {}
        write_json(directory / TUNING.name, record)


if __name__ == "__main__":
    run(main)

"""Turn the rows of data/audit into the examples that models read, data/prepare.

python stages/prepare.py
"""

from pathlib import Path

from posttrain.core.files import write_json
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.tasks import get_task


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    metrics = task.prepare(params, Path("data/audit"), Path("data/prepare"))
    write_json("metrics/prepare.json", metrics)


if __name__ == "__main__":
    run(main)

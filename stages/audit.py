"""Check the rows of data/fetch: valid ones go to data/audit, the others to rejected.jsonl there, with reasons.

python stages/audit.py
"""

from pathlib import Path

from posttrain.core.files import write_json
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.tasks import get_task


def main(params: Params) -> None:
    task = get_task(*params.tasks)
    metrics = task.audit(Path("data/fetch"), Path("data/audit"))
    write_json("metrics/audit.json", metrics)


if __name__ == "__main__":
    run(main)

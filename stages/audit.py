"""Check data/fetch: sound rows go to data/audit, the others to its rejected.jsonl, with reasons.

python stages/audit.py
"""

from pathlib import Path

from posttrain.files import write_json
from posttrain.params import Params
from posttrain.stage import run
from posttrain.tasks import get_task


def main(params: Params) -> None:
    task = get_task(params.selected_dataset.task)
    metrics = task.audit(Path("data/fetch"), Path("data/audit"))
    write_json("metrics/audit.json", metrics)


if __name__ == "__main__":
    run(main)

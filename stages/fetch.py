"""Download, copy or generate the chosen data set into data/fetch, in its original format.

python stages/fetch.py
"""

from pathlib import Path

from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.tasks import get_task


def main(params: Params) -> None:
    get_task(*params.tasks).fetch(params, Path("data/fetch"))


if __name__ == "__main__":
    run(main)

"""Check all of params.yaml, say what differs from the commit, and write to data/code a digest of each stage's code.

python stages/code.py
"""

from pathlib import Path

from posttrain.core.code import CODE, write_digests
from posttrain.core.committed import settings_that_differ
from posttrain.core.files import atomic_directory
from posttrain.core.methods import check_methods
from posttrain.core.params import Params
from posttrain.core.stage import run


def main(params: Params) -> None:
    check_methods(params)
    for line in settings_that_differ():
        print(f"differs from the commit: {line}", flush=True)
    with atomic_directory(CODE) as directory:
        write_digests(Path(directory), params)


if __name__ == "__main__":
    run(main)

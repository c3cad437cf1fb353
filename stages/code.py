"""Check all of params.yaml, say what differs from the commit and what the chosen entries set, and write to data/code a
digest of each stage's code.

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
    for line in [*differences(params), *settings_that_apply(params)]:
        print(line, flush=True)
    with atomic_directory(CODE) as directory:
        write_digests(Path(directory), params)


def differences(params: Params) -> list[str]:
    """What differs from the commit, and whether an entry's `settings` leave it without effect."""
    lines = []
    for line in settings_that_differ():
        section, _, key = line.split(":")[0].rpartition(".")
        family = section.split(".")[0]
        by = params.settings.get(f"{section}.{key}") or params.settings.get(
            f"{family}.common.{key}"
        )
        note = f" (without effect: {by[0]} sets it)" if by else ""
        lines.append(f"differs from the commit: {line}{note}")
    return lines


def settings_that_apply(params: Params) -> list[str]:
    """A line for each parameter that the selected entries' `settings` set, and one that says how to change them."""
    lines = [f"{entry} sets: {name}: {value}" for name, (entry, value) in params.settings.items()]
    change = "(to change one of these: -S ENTRY.settings.NAME=VALUE)"
    return [*lines, change] if lines else []


if __name__ == "__main__":
    run(main)

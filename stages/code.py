"""Check all of params.yaml, say what differs from the commit and what the model's entry sets, and write to data/code a
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
    """What differs from the commit, and whether the selected model's `settings` leave it without effect."""
    lines = []
    for line in settings_that_differ():
        family, _, rest = line.split(":")[0].partition(".")
        section, _, key = rest.partition(".")
        own = params.selected_model.settings.model_dump().get(family, {})
        sets = family == "sampling" and rest in own
        sets = sets or any(key and key in own.get(name, {}) for name in (section, "common"))
        note = f" (without effect: the model {params.model} sets it)" if sets else ""
        lines.append(f"differs from the commit: {line}{note}")
    return lines


def settings_that_apply(params: Params) -> list[str]:
    """A line for each parameter that the selected model's `settings` set, and one that says how to change them."""
    found = params.selected_model.settings.leaves()
    lines = [f"the model {params.model} sets: {name}: {value}" for name, value in found.items()]
    change = f"(to change one of these: -S models.{params.model}.settings.NAME=VALUE)"
    return [*lines, change] if lines else []


if __name__ == "__main__":
    run(main)

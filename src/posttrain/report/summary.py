"""A finished run in a few lines: findings, tables, the chosen policies, the report's path, the minutes it took.

    python -m posttrain.report.summary [SECONDS]

SECONDS: the duration of the run, which `make repro` measures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from posttrain.core.committed import settings_that_differ
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_text
from posttrain.core.params import FAMILIES, load_params
from posttrain.report.findings import NOT_TRAINED
from posttrain.report.tables import MAIN, sections_of


def main() -> None:
    params = load_params()
    print(f"\n{params.model} on {params.dataset}, seeds {', '.join(map(str, params.seeds))}")
    for line in settings_that_differ():
        print(f"differs from the commit: {line}")
    chosen = read_json("metrics/best.json")
    for family in FAMILIES:
        print(f"\n{family}: {first_sentence(Path(f'plots/compare/{family}.md'))}\n")
        if "not_trained" in chosen[family]:
            continue
        print("\n\n".join(first_tables(Path(f"plots/compare/{family}.md"))))
        for sentence in left_out(Path(f"plots/compare/{family}.md")):
            print(sentence)
        best = chosen[family]
        right = f"{100 * best['val_accuracy']:.1f} % right on validation"
        print(f"chosen: {best['policy']}, seed {best['seed']}, {right}; models/best/{family}")
    took = f", {float(sys.argv[1]) / 60:.1f} minutes" if sys.argv[1:] else ""
    print(f"\nplots/report.html: open it in a browser{took}")


def first_sentence(path: Path) -> str:
    """The first sentence of a comparison's findings."""
    return read_text(path).split("\n")[0].removeprefix("- ").replace("**", "")


def left_out(path: Path) -> list[str]:
    """The sentences of a comparison's findings that name policies that were not trained."""
    lines = [line for line in read_text(path).split("\n") if NOT_TRAINED in line]
    return [line.removeprefix("- ").replace("**", "") for line in lines]


def first_tables(path: Path) -> list[str]:
    """The tables of values and of changes of a comparison, as plain text."""
    sections = sections_of(read_text(path))[1]
    found = [
        _plain(block)
        for heading, text in sections.items()
        if heading.startswith(MAIN)
        for block in text.split("\n\n")
        if block.startswith("|")
    ]
    if not found:
        raise UserError(f"{path}: has no table; run dvc repro compare")
    return found


def _plain(table: str) -> str:
    lines = [line.split("|") for line in table.split("\n")]
    right = [cell.endswith(":") for cell in lines[1]]
    return "\n".join("|".join(map(_without_bold, cells, right)) for cells in lines)


def _without_bold(cell: str, right: bool) -> str:
    """A cell of the same width, without its asterisks."""
    bare = cell.replace("**", "")
    return bare.rjust(len(cell)) if right else bare.ljust(len(cell))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"summary: {error}")

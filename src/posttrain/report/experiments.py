"""The accuracy of every policy in the workspace, in its commit and in each DVC experiment, as one table.

    python -m posttrain.report.experiments [selector | generator] [MEASURE]

The numbers come from plots/compare/FAMILY.csv, without the hundreds of columns of `dvc exp show`. MEASURE is one of that
file, by default accuracy (others: sample_accuracy, reward, expected_reward, and each with _change). Experiments without
a comparison are left out.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.report.findings import label
from posttrain.report.tables import table

Values = Mapping[str, float]  # by policy


def main(arguments: Sequence[str]) -> None:
    family, measure = [*arguments, *("selector", "accuracy")[len(arguments) :]][:2]
    path = Path(f"plots/compare/{family}.csv")
    columns: dict[str, Values] = {}
    if path.is_file():
        columns["workspace"] = parse("workspace", path.read_text(encoding="utf-8"), measure)
    for name, revision in revisions().items():
        text = git("show", f"{revision}:{path.as_posix()}")
        if text is not None:
            columns[name] = parse(name, text, measure)
    if not columns:
        raise UserError(f"{path}: neither here nor in an experiment; run dvc repro")
    print(by_policy(columns, measure))


def parse(name: str, text: str, measure: str) -> Values:
    """The means over seeds of a measure in the long table of stage compare; `UserError` if the text is no such table."""
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        means = [row for row in rows if (row["seed"], row["metric"]) == ("mean", measure)]
        return {row["policy"]: float(row["value"]) for row in means}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name}: not a comparison's table: {error}") from error


def revisions() -> dict[str, str]:
    """By name, the revisions of HEAD and then of each experiment, the newest first."""
    listed = git("for-each-ref", "refs/exps", "--sort=-creatordate", "--format=%(refname)")
    names = [name for name in (listed or "").splitlines() if not _internal(name)]
    return {"HEAD": "HEAD", **{name.rpartition("/")[2]: name for name in names}}


def by_policy(columns: Mapping[str, Values], measure: str) -> str:
    """Markdown, a row per policy and a column per experiment, in percent."""
    policies = dict.fromkeys(policy for values in columns.values() for policy in values)
    if not policies:
        raise UserError(f"no comparison has a measure {measure!r}")
    rows = [
        [label(policy), *(_cell(values.get(policy)) for values in columns.values())]
        for policy in policies
    ]
    return table([f"{measure} %", *columns], rows)


def git(*arguments: str) -> str | None:
    """The output of a git command; None if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _internal(name: str) -> bool:
    """Whether DVC keeps the reference for itself: a running or queued experiment, or one that failed."""
    return name.split("/")[2] in ("exec", "stash", "celery")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"experiments: {error}")

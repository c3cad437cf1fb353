"""The accuracy of every policy in the workspace, in its commit and in each DVC experiment, as one table.

    python -m posttrain.report.experiments [selector | generator] [MEASURE]

The numbers come from metrics/compare/FAMILY.json, without the thousands of columns of `dvc exp show`. MEASURE is one of
that file (accuracy, expected_reward). Experiments without a comparison are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.report.findings import label
from posttrain.report.tables import table

Metrics = Mapping[str, Mapping[str, float]]


def main(arguments: Sequence[str]) -> None:
    family, measure = [*arguments, *("selector", "accuracy")[len(arguments) :]][:2]
    path = f"metrics/compare/{family}.json"
    columns: dict[str, Metrics] = {}
    if Path(path).is_file():
        columns["workspace"] = json.loads(Path(path).read_text(encoding="utf-8"))
    for name, revision in revisions().items():
        text = git("show", f"{revision}:{path}")
        if text is not None:
            columns[name] = json.loads(text)
    if not columns:
        raise UserError(f"{path}: neither here nor in an experiment; run dvc repro")
    print(by_policy(columns, measure))


def revisions() -> dict[str, str]:
    """By name, the revisions of HEAD and then of each experiment, the newest first."""
    listed = git("for-each-ref", "refs/exps", "--sort=-creatordate", "--format=%(refname)")
    names = [name for name in (listed or "").splitlines() if not _internal(name)]
    return {"HEAD": "HEAD", **{name.rpartition("/")[2]: name for name in names}}


def by_policy(columns: Mapping[str, Metrics], measure: str) -> str:
    """Markdown, a row per policy and a column per experiment, in percent."""
    policies = dict.fromkeys(policy for metrics in columns.values() for policy in metrics)
    rows = [
        [
            label(policy),
            *(_cell(metrics.get(policy, {}).get(measure)) for metrics in columns.values()),
        ]
        for policy in policies
    ]
    if not any(cell for row in rows for cell in row[1:]):
        raise UserError(f"no comparison has a measure {measure!r}")
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

"""Compare methods over several data sets or tasks: one experiment or commit per data set.

    python -m posttrain.report.across [--generator] REVISION REVISION ...

A revision is an experiment's name, a branch or a commit that holds plots/compare/FAMILY.csv of its data set; `.` is the
workspace. The table shows each policy's test accuracy by data set, their mean weighted by the numbers of questions, and
a policy that dominates it, if there is one: at least as good on every data set and better on one. This compares the
measured accuracies; their intervals are in the comparisons.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dvc.api
from dvc.exceptions import DvcException
from dvc.scm import SCMError

from posttrain.core.errors import UserError
from posttrain.report.findings import label
from posttrain.report.pareto import dominated
from posttrain.report.tables import table as aligned


@dataclass(frozen=True, slots=True)
class Outcome:
    """Test accuracy of each policy on one data set of `questions` test questions."""

    name: str
    questions: int
    accuracy: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="across", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--generator", action="store_true", help="the generator's comparison")
    parser.add_argument("revisions", nargs="+", metavar="REVISION")
    options = parser.parse_args(arguments)
    if len(set(options.revisions)) < len(options.revisions):
        raise UserError("a revision is named twice, so its questions would count twice")
    path = f"plots/compare/{'generator' if options.generator else 'selector'}.csv"
    print(table([outcome(revision, path) for revision in options.revisions]))


def outcome(revision: str, path: str) -> Outcome:
    """The outcome of the comparison at a revision; `UserError` if there is none."""
    source = None if revision == "." else revision
    try:
        rows = dvc.api.read(path, rev=source)
        dataset = dvc.api.params_show(rev=source)["dataset"]
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"{revision}: no {path} there: {error}") from error
    return parse(f"{dataset} ({revision})", rows, path)


def parse(name: str, text: str, path: str) -> Outcome:
    """The outcome in the long table of stage compare; `UserError` if the text is no such table."""
    accuracy, questions = {}, 0
    try:
        for row in csv.DictReader(io.StringIO(text)):
            if row["seed"] == "mean" and row["metric"] == "accuracy":
                accuracy[row["policy"]] = float(row["value"])
            if row["metric"] == "questions":
                questions = int(float(row["value"]))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name}: {path} is not a comparison's table: {error}") from error
    if not accuracy or not questions:
        raise UserError(f"{name}: {path} has no accuracies with their number of questions")
    return Outcome(name, questions, accuracy)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: of each policy that all data sets have, the accuracies, their weighted mean, and one that dominates it."""
    policies = [
        name for name in outcomes[0].accuracy if all(name in one.accuracy for one in outcomes)
    ]
    points = {name: [one.accuracy[name] for one in outcomes] for name in policies}
    if not policies:
        raise UserError("there is no policy that all of them compare")
    worse = dominated(points)
    total = sum(one.questions for one in outcomes)
    heads = [f"{one.name}, {one.questions} questions" for one in outcomes]
    rows = []
    for name, values in points.items():
        whole = sum(v * one.questions for v, one in zip(values, outcomes, strict=True)) / total
        shown = [f"{100 * value:.1f}" for value in [*values, whole]]
        rows.append([label(name), *shown, label(worse[name]) if name in worse else ""])
    return aligned(["accuracy %", *heads, "weighted mean", "dominated by"], rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"across: {error}")

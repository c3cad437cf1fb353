"""Compare methods over several data sets or tasks: one experiment or commit per data set.

    python -m posttrain.report.across [--generator] REVISION REVISION ...

A revision is an experiment's name, a branch or a commit that holds plots/compare.csv of its data set; `.` is the
workspace. Printed is each policy's test accuracy by data set, their mean weighted by the numbers of questions, and
which policies another one dominates: at least as good on every data set and better on one. That is said of the measured
accuracies; their intervals are in the comparisons.
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
from posttrain.report.pareto import dominated


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
    path = "plots/compare_generator.csv" if options.generator else "plots/compare.csv"
    print(table([outcome(revision, path) for revision in options.revisions]))


def outcome(revision: str, path: str) -> Outcome:
    """What the comparison at a revision says."""
    source = None if revision == "." else revision
    try:
        rows = dvc.api.read(path, rev=source)
        dataset = dvc.api.params_show(rev=source)["dataset"]
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"{revision}: no {path} there: {error}") from error
    return parse(f"{dataset} ({revision})", rows, path)


def parse(name: str, text: str, path: str) -> Outcome:
    """From the long table of stage compare."""
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
    """Markdown: policies that all data sets have, accuracy on each, weighted mean, which one dominates it."""
    policies = [
        name for name in outcomes[0].accuracy if all(name in one.accuracy for one in outcomes)
    ]
    points = {name: [one.accuracy[name] for one in outcomes] for name in policies}
    if not policies:
        raise UserError("there is no policy that all of them compare")
    beaten = dominated(points)
    total = sum(one.questions for one in outcomes)
    heads = [f"{one.name}, {one.questions} questions" for one in outcomes]
    rows = [
        f"| policy | {' | '.join(heads)} | weighted mean | dominated by |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for name, values in points.items():
        whole = sum(v * one.questions for v, one in zip(values, outcomes, strict=True)) / total
        shown = " | ".join(f"{value:.3f}" for value in [*values, whole])
        rows.append(f"| {name} | {shown} | {beaten.get(name, '')} |")
    return "\n".join(rows)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"across: {error}")

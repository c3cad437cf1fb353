"""The policies over several data sets: one experiment or commit per data set, which become the parts of `report.parts`.

    python -m posttrain.report.across [--generator] REVISION REVISION ...

A revision is an experiment's name, a branch or a commit that holds plots/compare/FAMILY.csv of its data set; `.` is the
workspace. The table shows each policy's test accuracy by data set, and their means: over all questions, and by equal
weights. Below it are the Pareto front and the policies off it, on points and by intervals. The answers of several seeds to a
question count as one in the means' intervals. A mixture in one run has the same and more in its own comparison.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace

from posttrain.core.errors import UserError
from posttrain.report.compare import Estimate
from posttrain.report.parts import Figures, Part, Parts, over, over_table, sentences


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="across", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--generator", action="store_true", help="the generator's comparison")
    parser.add_argument("revisions", nargs="+", metavar="REVISION")
    options = parser.parse_args(arguments)
    if len(set(options.revisions)) < len(options.revisions):
        raise UserError("a revision is named twice, so its questions would count twice")
    path = f"plots/compare/{'generator' if options.generator else 'selector'}.csv"
    found = together([outcome(revision, path) for revision in options.revisions])
    print("\n\n".join([over_table(found), *sentences(found)]))


def outcome(revision: str, path: str) -> Part:
    """The outcome of the comparison at a revision; `UserError` if there is none."""
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    source = None if revision == "." else revision
    try:
        rows = dvc.api.read(path, rev=source)
        dataset = dvc.api.params_show(rev=source)["dataset"]
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"{revision}: no {path} there: {error}") from error
    return parse(f"{dataset} ({revision})", rows, path)


def parse(name: str, text: str, path: str) -> Part:
    """The outcome in the long table of stage compare; `UserError` if the text is no such table."""
    accuracy, questions = {}, 0
    try:
        for row in csv.DictReader(io.StringIO(text)):
            if row["seed"] == "mean" and row["metric"] == "accuracy":
                interval, inner = (
                    (float(row[f"low{e}"]), float(row[f"high{e}"])) for e in ("", "_80")
                )
                accuracy[row["policy"]] = Estimate(float(row["value"]), interval, inner)
            if row["metric"] == "questions":
                questions = int(float(row["value"]))
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name}: {path} is not a comparison's table: {error}") from error
    if not accuracy or not questions:
        raise UserError(f"{name}: {path} has no accuracies with their number of questions")
    figures = {policy: Figures(one, questions) for policy, one in accuracy.items()}
    return Part(f"{name}, {questions} questions", questions, 1.0, figures)


def together(parts: Sequence[Part]) -> Parts:
    """The policies that all parts have; `UserError` if there is none."""
    policies = [name for name in parts[0].figures if all(name in one.figures for one in parts)]
    if not policies:
        raise UserError("there is no policy that all of them compare")
    kept = [replace(one, figures={name: one.figures[name] for name in policies}) for one in parts]
    questions = [float(part.questions) for part in kept]
    return Parts(kept, over(kept, questions), over(kept, [part.weight for part in kept]))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"across: {error}")

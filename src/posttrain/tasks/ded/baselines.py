"""What blind guesses score, next to which every result of this task must stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import fmean

from posttrain.tasks import Example
from posttrain.tasks.ded.prompt import target
from posttrain.tasks.ded.score import score_all


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Share of the examples that each guess answers.

    commonest program: the reference program that occurs most often, as the answer to all. input: a program that prints its
    input. shown output: one that prints the output of the first shown case.
    """
    rows = [*examples]
    (program, _), *_ = Counter(map(target, rows)).most_common(1)
    scores = score_all([program] * len(rows), rows)
    return {
        "commonest program": fmean(score.correct for score in scores),
        "input": fmean(all(given == output for given, output in row["hidden"]) for row in rows),
        "shown output": fmean(
            all(output == row["shown"][0][1] for _, output in row["hidden"])
            if row["shown"]
            else 0.0
            for row in rows
        ),
    }

"""What blind guesses score, next to which every result of this task must stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import fmean

from posttrain.tasks import Example
from posttrain.tasks.abd.score import score_all


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Share of the examples that each guess answers: the commonest of the known inputs, and the output as the input."""
    rows = [*examples]
    (common, _), *_ = Counter(row["input"] for row in rows).most_common(1)
    guesses = {
        "commonest input": [common] * len(rows),
        "output": [row["output"] for row in rows],
    }
    found = {}
    for name, inputs in guesses.items():
        scores = score_all([f"<INPUT>{each}</INPUT>" for each in inputs], rows)
        found[name] = fmean(score.correct for score in scores)
    return found

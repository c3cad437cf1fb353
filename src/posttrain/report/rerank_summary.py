"""The accuracy of reranking over all seeds.

    python -m posttrain.report.rerank_summary

First the gain of the rule that the validation questions chose, over each rule that does not ask the selector. With three
seeds and more, intervals and p-values are over other trainings and other questions (`measures.crossed`); with fewer, over
other questions for these models alone. p-values are adjusted (Holm) for these gains.

Then, exploratory, each rule of `posttrain.report.rerank`: its accuracy at each seed of params.yaml and their mean, and its
gains with 95 % bootstrap intervals over questions, not adjusted. A question's value is averaged over seeds before questions
are resampled.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl
from posttrain.core.manifest import check_code
from posttrain.core.params import load_params
from posttrain.measures.crossed import LEAST_SEEDS, crossed
from posttrain.measures.intervals import Array, Interval, percentiles, resample_means
from posttrain.measures.named import Row
from posttrain.measures.significance import holm, sign_flip_p
from posttrain.report.compare import LEVEL
from posttrain.report.findings import joined, points
from posttrain.report.rerank import ASKING, OTHERS, RULES
from posttrain.report.tables import table as aligned

FOLDER = Path("data/rerank")
COMPARED = ("greedy", "likelihood", "random")
EXPLORATORY = (
    "Exploratory: all rules on the same answers. Which of them to compare was not fixed before they were looked at, and "
    "intervals are over questions for these models alone, not adjusted."
)


def main() -> None:
    params = load_params()
    choices, rules = [], []
    for seed in params.seeds:
        folder = FOLDER / str(seed)
        if not (folder / "choices.jsonl").is_file():
            raise UserError(f"{folder}: missing; run dvc repro rerank")
        check_code(folder)
        choices.append(read_jsonl(folder / "choices.jsonl"))
        rules.append(read_json(folder / "summary.json")["values"]["rule"])
    right = accuracies(choices)
    print(chosen_text(right, rules, params.seeds, params.compare.bootstrap))
    print(f"\n{EXPLORATORY}\n\n{table(right, params.seeds, params.compare.bootstrap)}")


def accuracies(choices: Sequence[Sequence[Row]]) -> dict[str, Array]:
    """By rule, 1 where its choice is right and else 0, (S, N) for S seeds on the same N questions."""
    ids = [[row["id"] for row in rows] for rows in choices]
    if any(other != ids[0] for other in ids):
        raise UserError(f"{FOLDER}: the seeds were evaluated on different questions; run dvc repro")
    return {
        rule: np.array([[float(row[rule]["correct"]) for row in rows] for rows in choices])
        for rule in RULES
    }


def chosen_text(
    right: Mapping[str, Array], rules: Sequence[str], seeds: Sequence[int], resamples: int
) -> str:
    """What the chosen rules are, and a table of their gains; rules: of each seed; right: as from `accuracies`."""
    chosen = np.stack([right[rule][place] for place, rule in enumerate(rules)])
    differences = [chosen - right[other] for other in OTHERS]
    found = [_inferred(one, resamples) for one in differences]
    rows = [
        [other, points(float(difference.mean())), _brackets(interval), f"{p:.3f}"]
        for other, difference, (interval, _), p in zip(
            OTHERS, differences, found, holm([p for _, p in found]), strict=True
        )
    ]
    of_seeds = [f"{_named(rule)} (seed {seed})" for seed, rule in zip(seeds, rules, strict=True)]
    about = (
        "other trainings and other questions"
        if len(seeds) >= LEAST_SEEDS
        else f"these models alone, on other questions: other trainings need {LEAST_SEEDS} seeds"
    )
    return "\n".join(
        [
            f"The rule chosen by validation questions among {joined([*map(_named, ASKING)])}: {joined(of_seeds)}.",
            f"Accuracy on test questions {100 * chosen.mean():.1f} %. Intervals and p-values are of {about}.",
            "",
            aligned(["over", "gain, points", "95 %", "p"], rows),
        ]
    )


def table(right: Mapping[str, Array], seeds: Sequence[int], resamples: int) -> str:
    """Markdown: a row per rule, the worst first; `right` as from `accuracies`."""
    heads = ["rule", "accuracy %", *(f"seed {seed}" for seed in seeds)]
    heads += [f"over {rule}, points" for rule in COMPARED]
    rows = []
    for rule in sorted(RULES, key=lambda rule: float(right[rule].mean())):
        of_seeds = [
            f"{100 * value:.1f}" for value in (right[rule].mean(), *right[rule].mean(axis=1))
        ]
        gains = [
            "" if rule == other else _gain(right[rule] - right[other], resamples)
            for other in COMPARED
        ]
        rows.append([_named(rule), *of_seeds, *gains])
    return aligned(heads, rows)


def _inferred(differences: Array, resamples: int) -> tuple[Interval, float]:
    found = crossed(differences)
    if found is not None:
        return found.interval(LEVEL), found.p
    return _of_models(differences, resamples), sign_flip_p(differences.mean(axis=0))


def _of_models(differences: Array, resamples: int) -> Interval:
    return percentiles(resample_means(differences.mean(axis=0), resamples), LEVEL)


def _gain(differences: Array, resamples: int) -> str:
    interval = _of_models(differences, resamples)
    return f"{points(float(differences.mean()))} {_brackets(interval)}"


def _brackets(interval: Interval) -> str:
    low, high = interval
    return f"[{points(low)}, {points(high)}]"


def _named(rule: str) -> str:
    return rule.replace("_", " ")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"rerank_summary: {error}")

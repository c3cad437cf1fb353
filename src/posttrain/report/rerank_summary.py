"""The accuracy of reranking over all seeds.

    python -m posttrain.report.rerank_summary

For each rule of `posttrain.report.rerank`, its accuracy at each seed of params.yaml and their mean, and its gains over
the greedy answer, over the generator's own likelihood and over a random candidate, with 95 % bootstrap intervals over
questions. A question's value is averaged over seeds before questions are resampled, as in the comparisons.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.manifest import check_code
from posttrain.core.params import load_params
from posttrain.measures.intervals import Array, percentiles, resample_means
from posttrain.measures.named import Row
from posttrain.report.compare import LEVEL
from posttrain.report.findings import points
from posttrain.report.rerank import RULES
from posttrain.report.tables import table as aligned

FOLDER = Path("data/rerank")
COMPARED = ("greedy", "likelihood", "random")


def main() -> None:
    params = load_params()
    for seed in params.seeds:
        if not (FOLDER / str(seed) / "choices.jsonl").is_file():
            raise UserError(f"{FOLDER / str(seed)}: missing; run dvc repro rerank")
        check_code(FOLDER / str(seed))
    choices = [read_jsonl(FOLDER / str(seed) / "choices.jsonl") for seed in params.seeds]
    print(table(accuracies(choices), params.seeds, params.compare.bootstrap))


def accuracies(choices: Sequence[Sequence[Row]]) -> dict[str, Array]:
    """By rule, 1 where its choice is right and else 0, (S, N) for S seeds on the same N questions."""
    ids = [[row["id"] for row in rows] for rows in choices]
    if any(other != ids[0] for other in ids):
        raise UserError(f"{FOLDER}: the seeds were evaluated on different questions; run dvc repro")
    return {
        rule: np.array([[float(row[rule]["correct"]) for row in rows] for rows in choices])
        for rule in RULES
    }


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
            "" if rule == other else _gain((right[rule] - right[other]).mean(axis=0), resamples)
            for other in COMPARED
        ]
        rows.append([rule.replace("_", " "), *of_seeds, *gains])
    return aligned(heads, rows)


def _gain(differences: Array, resamples: int) -> str:
    low, high = percentiles(resample_means(differences, resamples), LEVEL)
    return f"{points(float(differences.mean()))} [{points(low)}, {points(high)}]"


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"rerank_summary: {error}")

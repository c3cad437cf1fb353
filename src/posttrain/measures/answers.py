"""What a policy that writes its answers is worth: one record per completion, and figures over records.

A record is one JSON line of data/sample or of an evaluation; `score_completion` alone makes it:

    id, variant, index           the question, how the prompt asked, the number of the draw
    text, tokens, finished       the completion, its length in tokens, whether it ended by itself
    status, failure              scored | unparseable | unscorable; the first failure, None if right
    value, answer                what the program executes to, what the text states; None if neither
    components, reward           the parts of the reward and their weighted mean
    quality                      what ranks right answers among themselves, by part
    correct, program_correct     the program gives the gold answer; it equals the gold program
    answer_strict, answer_lenient                 of the text alone

Every rate has all questions of the split below the line: what cannot be read is not left out.

    pass@k       mean over questions of 1 - C(n - c, k) / C(n, k), c right ones of n draws: the unbiased
                 estimate of the chance that one of k draws is right (Chen et al. 2021, eq. 1)
    majority@k   of the first k draws, the answer that most programs execute to (Wang et al. 2022,
                 self-consistency). What does not execute has no vote, unless nothing does; then, as
                 in a tie, the first drawn counts

Left out: majority@k over all subsets of k draws (the first k are taken).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file
from posttrain.measures.intervals import jeffreys, percentiles, resample_means

Row = Mapping[str, Any]
Columns = dict[str, NDArray[Any]]  # name -> (N,), one value per question; bool where it is a rate

DIGITS = 6
RIGHT = "right"


def evaluator_hash() -> str:
    """Changes whenever the definitions of this file do; predictions carry it."""
    return sha256_file(Path(__file__))


# ------------------------------------------------------------------------------- records


def by_question(records: Sequence[Row]) -> list[list[Row]]:
    """The draws of each question, questions in the order in which they first appear.

    `UserError` when a draw is there twice.
    """
    groups: dict[str, list[Row]] = {}
    seen: set[tuple[str, str, int]] = set()
    for record in records:
        key = record["id"], record["variant"], record["index"]
        if key in seen:
            raise UserError(f"{key[0]}: draw {key[2]} of variant {key[1]} is there twice")
        seen.add(key)
        groups.setdefault(record["id"], []).append(record)
    return list(groups.values())


# ------------------------------------------------------------------------------- figures


def means(columns: Columns) -> dict[str, float]:
    """The mean of each column over the questions."""
    return {name: round(float(values.mean()), DIGITS) for name, values in columns.items()}


def intervals(
    columns: Columns, levels: Sequence[float], resamples: int
) -> dict[str, dict[str, list[float]]]:
    """[low, high] of each mean at each level: Jeffreys for bool columns, bootstrap for the rest.

    All columns share the resampled questions, so a column of differences is paired.
    """
    stacked = np.stack([values.astype(np.float64) for values in columns.values()], axis=1)
    drawn = resample_means(stacked, resamples)
    result: dict[str, dict[str, list[float]]] = {}
    for column, (name, values) in enumerate(columns.items()):
        result[name] = {}
        for level in levels:
            if values.dtype == np.bool_:
                low, high = jeffreys(int(values.sum()), len(values), level)
            else:
                low, high = percentiles(drawn[:, column], level)
            result[name][f"{level:g}"] = [round(low, DIGITS), round(high, DIGITS)]
    return result


def greedy_metrics(records: Sequence[Row]) -> dict[str, Any]:
    """Means of `greedy_columns`, the number of questions, and how many there are of each failure.

    `failures` counts right answers too, as `right`, so it sums to the questions.
    """
    failures = Counter(failure_class(record) for record in records)
    return {
        "questions": len(records),
        **means(greedy_columns(records)),
        "failures": dict(sorted(failures.items())),
    }


def greedy_columns(records: Sequence[Row]) -> Columns:
    """Per question, from its one answer: the verdicts, the reward, the length in tokens."""
    groups = by_question(records)
    if not groups:
        raise UserError("there are no completions to measure")
    for group in groups:
        if len(group) > 1:
            raise UserError(f"{group[0]['id']}: {len(group)} greedy answers to one question")
    return {
        "execution_accuracy": verdicts(record["correct"] for record in records),
        "program_accuracy": verdicts(record["program_correct"] for record in records),
        "answer_strict": verdicts(record["answer_strict"] for record in records),
        "answer_lenient": verdicts(record["answer_lenient"] for record in records),
        "format_valid": verdicts(_in_form(record) for record in records),
        "parsed": verdicts(_parsed(record) for record in records),
        "unscorable": verdicts(record["status"] == "unscorable" for record in records),
        "unfinished": verdicts(not record["finished"] for record in records),
        "reward": numbers(record["reward"] for record in records),
        "tokens": numbers(record["tokens"] for record in records),
    }


def failure_class(record: Row) -> str:
    """The first failure of an answer, `right` where there is none."""
    return record["failure"] or RIGHT


def pass_at_k(correct_counts: Sequence[int], n: int, k: int) -> NDArray[np.float64]:
    """Per question, 1 - C(n - c, k) / C(n, k) for c right ones of n draws: (N,) in [0, 1]."""
    if not 1 <= k <= n:
        raise UserError(f"pass@{k} cannot be estimated from {n} completions per question")
    for count in correct_counts:
        if not 0 <= count <= n:
            raise ValueError(f"{count} right completions of {n}")
    return np.array([1 - comb(n - count, k) / comb(n, k) for count in correct_counts])


def majority_at_k(group: Sequence[Row], k: int) -> Row:
    """The first of the first k draws that executes to what most of them execute to."""
    if not 1 <= k <= len(group):
        raise UserError(f"majority@{k} cannot be taken of {len(group)} completions")
    voters = [record for record in group[:k] if record["value"] is not None]
    if not voters:
        return group[0]
    votes = Counter(record["value"] for record in voters)
    # max takes the first of equals, and voters are in the order drawn.
    return max(voters, key=lambda record: votes[record["value"]])


def sampled_metrics(records: Sequence[Row], ks: Sequence[int]) -> dict[str, float]:
    """Means of `sampled_columns`, and how many questions and draws there are."""
    columns = sampled_columns(records, ks)
    questions = len(columns["reward"])
    return {"questions": questions, "samples": len(records) // questions, **means(columns)}


def sampled_columns(records: Sequence[Row], ks: Sequence[int]) -> Columns:
    """Per question, over its n draws: pass@k, majority@k, and means of what the draws are.

    reward is the expected reward of the sampling policy, pass_at_1 its expected accuracy; distinct is
    the share of the draws that repeat no earlier one. `UserError` when questions differ in n.
    """
    groups = by_question(records)
    if not groups:
        raise UserError("there are no completions to measure")
    n = len(groups[0])
    for group in groups:
        if len(group) != n:
            raise UserError(
                f"{group[0]['id']} has {len(group)} completions, {groups[0][0]['id']} has {n}"
            )
    counts = [sum(bool(record["correct"]) for record in group) for group in groups]
    columns: Columns = {f"pass_at_{k}": pass_at_k(counts, n, k) for k in ks}
    for k in ks:
        columns[f"majority_at_{k}"] = verdicts(
            majority_at_k(group, k)["correct"] for group in groups
        )
    return columns | {
        "parsed": numbers(average(map(_parsed, group)) for group in groups),
        "format_valid": numbers(average(map(_in_form, group)) for group in groups),
        "unfinished": numbers(
            average(not record["finished"] for record in group) for group in groups
        ),
        "reward": numbers(average(record["reward"] for record in group) for group in groups),
        "tokens": numbers(average(record["tokens"] for record in group) for group in groups),
        "distinct": numbers(len({record["text"] for record in group}) / n for group in groups),
    }


def mean_quality(records: Sequence[Row]) -> dict[str, float]:
    """The mean over all draws of each part of their quality; what is unparseable has none of it."""
    return {
        part: round(average(record["quality"][part] for record in records), DIGITS)
        for part in records[0]["quality"]
    }


# ------------------------------------------------------------------------------- comparison


def prediction_rows(
    split: str, greedy: Sequence[Row], groups: Sequence[Sequence[Row]] | None = None
) -> list[dict[str, Any]]:
    """One row per question in the form of a selector's predictions, which `compare` pairs by question.

    The greedy answer takes the place of the chosen candidate, its failure (or `right`) that of the
    candidate's kind. best_reward is 1, what a right answer in the right form earns: there is no pool
    that could offer less, so the reward ratio is the reward. With `groups`, the draws of each
    question, expected_reward and probability_correct are means over the draws; without, the policy is
    greedy decoding itself, which gives its one answer for certain.
    """
    rows = []
    draws: Sequence[Sequence[Row]] = [[row] for row in greedy] if groups is None else groups
    for answer, group in zip(greedy, draws, strict=True):
        if any(record["id"] != answer["id"] for record in group):
            raise UserError(
                f"{answer['id']}: its greedy answer stands beside draws of another question"
            )
        rows.append(
            {
                "id": answer["id"],
                "split": split,
                "kind": failure_class(answer),
                "edit": answer["variant"],
                "correct": bool(answer["correct"]),
                "reward": answer["reward"],
                "best_reward": 1.0,
                "expected_reward": round(average(record["reward"] for record in group), DIGITS),
                "probability_correct": round(
                    average(record["correct"] for record in group), DIGITS
                ),
                "text": answer["text"],
                "tokens": answer["tokens"],
                "finished": answer["finished"],
                "answer": answer["answer"],
                "components": answer["components"],
            }
        )
    return rows


def _parsed(record: Row) -> bool:
    return bool(record["status"] == "scored")


def _in_form(record: Row) -> bool:
    return bool(record["components"]["format_valid"] == 1)


def verdicts(values: Iterable[Any]) -> NDArray[np.bool_]:
    return np.array([bool(value) for value in values])


def numbers(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([float(value) for value in values])


def average(values: Iterable[Any]) -> float:
    return float(np.mean([float(value) for value in values]))

"""Measures of written answers, from records of one completion each.

A record is one JSON line of data/generator_sample or of an evaluation, written by `rollouts.record`:

    id, variant, index               the question, the variant of its prompt, the number of the sample
    text, tokens, finished           the completion, its length in tokens, whether it ended by itself
    status, failure                  scored | unparseable | unscorable; the first failure, None if correct
    value, answer                    the result of the program, the answer that the text states; None if missing
    parts, reward                    the parts of the reward and their weighted mean
    quality                          the parts by which correct answers are ranked among themselves
    correct, program_correct         whether the program gives the gold answer; whether it equals the gold program
    answer_strict, answer_lenient    verdicts on the stated answer alone, by a strict and a lenient comparison

Every rate is over all questions of the split; an unparseable answer counts as wrong.

    pass@k       mean over questions of 1 - C(n - c, k) / C(n, k), for c correct of n samples: an unbiased estimate
                 of the probability that any of k samples is correct (Chen et al. 2021, eq. 1)
    majority@k   the most frequent result of the programs of the first k samples (Wang et al. 2022,
                 self-consistency). Programs that do not execute have no vote. In a tie, or without any vote, the
                 first sample counts

Left out: majority@k over all subsets of k samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.core.errors import UserError
from posttrain.measures.named import DIGITS, Columns, Row, means
from posttrain.measures.temperature import point

RIGHT = "right"


# ------------------------------------------------------------------------------- records


def by_question(records: Sequence[Row]) -> list[list[Row]]:
    """The records grouped by question, in order of first appearance; `UserError` if a record occurs twice."""
    groups: dict[str, list[Row]] = {}
    seen: set[tuple[str, str, int]] = set()
    for record in records:
        key = record["id"], record["variant"], record["index"]
        if key in seen:
            raise UserError(f"{key[0]}: sample {key[2]} of variant {key[1]} occurs twice")
        seen.add(key)
        groups.setdefault(record["id"], []).append(record)
    return list(groups.values())


# ------------------------------------------------------------------------------- figures


def greedy_metrics(records: Sequence[Row]) -> dict[str, Any]:
    """Means of `greedy_columns`, the number of questions, and the number of answers with each failure.

    `failures` also counts correct answers, as `right`, so its sum is the number of questions.
    """
    failures = Counter(failure_class(record) for record in records)
    return {
        "questions": len(records),
        **means(greedy_columns(records)),
        "failures": dict(sorted(failures.items())),
    }


def greedy_columns(records: Sequence[Row]) -> Columns:
    """Verdicts, reward and length in tokens of each question's one answer."""
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
    """The first failure of an answer, or `right`."""
    return record["failure"] or RIGHT


def pass_at_k(correct_counts: Sequence[int], n: int, k: int) -> NDArray[np.float64]:
    """1 - C(n - c, k) / C(n, k) for each question with c correct of n samples: (N,) in [0, 1]."""
    if not 1 <= k <= n:
        raise UserError(f"pass@{k} cannot be estimated from {n} completions per question")
    for count in correct_counts:
        if not 0 <= count <= n:
            raise ValueError(f"{count} right completions of {n}")
    return np.array([1 - comb(n - count, k) / comb(n, k) for count in correct_counts])


def majority_at_k(group: Sequence[Row], k: int) -> Row:
    """The first of k samples whose value is the most frequent one among them."""
    if not 1 <= k <= len(group):
        raise UserError(f"majority@{k} cannot be computed from {len(group)} completions")
    voters = [record for record in group[:k] if record["value"] is not None]
    if not voters:
        return group[0]
    votes = Counter(record["value"] for record in voters)
    # In a tie, max takes the first in the order of the samples.
    return max(voters, key=lambda record: votes[record["value"]])


def sampled_metrics(records: Sequence[Row], ks: Sequence[int]) -> dict[str, float]:
    """Means of `sampled_columns`, the number of questions, and the number of samples per question."""
    columns = sampled_columns(records, ks)
    questions = len(columns["reward"])
    return {"questions": questions, "samples": len(records) // questions, **means(columns)}


def sampled_columns(records: Sequence[Row], ks: Sequence[int]) -> Columns:
    """Measures of each question's n samples: pass@k, majority@k, and means of their other properties.

    reward estimates the expected reward of the sampling policy, pass_at_1 its expected accuracy; distinct is the fraction
    of distinct texts. Raises `UserError` if questions differ in n.
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


def curve(groups: Sequence[Sequence[Row]], temperatures: Sequence[float]) -> list[dict[str, float]]:
    """Mean accuracy and reward at each distinct temperature.

    groups: for each question a record at each of the temperatures, in their order.
    """
    points = []
    for temperature in sorted(set(temperatures)):
        columns = [place for place, each in enumerate(temperatures) if each == temperature]
        records = [group[column] for group in groups for column in columns]
        accuracy, reward = (average(one[name] for one in records) for name in ("correct", "reward"))
        points.append(point(temperature, accuracy, reward))
    return points


def mean_quality(records: Sequence[Row]) -> dict[str, float]:
    """The mean of each part of the quality, over the samples that have it; unparseable samples have quality 0."""
    return {
        part: round(average(r["quality"][part] for r in records if part in r["quality"]), DIGITS)
        for part in dict.fromkeys(part for record in records for part in record["quality"])
    }


# ------------------------------------------------------------------------------- comparison


def prediction_rows(
    split: str,
    greedy: Sequence[Row],
    groups: Sequence[Sequence[Row]] | None = None,
    fitted: Sequence[Sequence[Row]] | None = None,
) -> list[dict[str, Any]]:
    """One row per question in the format of a selector's predictions, which `compare` pairs by question.

    The greedy answer stands for the chosen candidate, and its failure (or `right`) for the candidate's kind.
    expected_reward and probability_correct are means over the samples of the question in `groups`, those with _fitted over
    `fitted`; without samples, the values of the greedy answer.
    """
    rows = []
    alone: Sequence[Sequence[Row]] = [[row] for row in greedy]
    for answer, group, tempered in zip(greedy, groups or alone, fitted or alone, strict=True):
        if any(record["id"] != answer["id"] for record in (*group, *tempered)):
            raise UserError(
                f"{answer['id']}: its greedy answer stands beside samples of another question"
            )
        rows.append(
            {
                "id": answer["id"],
                "split": split,
                "kind": failure_class(answer),
                "correct": bool(answer["correct"]),
                "reward": answer["reward"],
                **_expected("", group),
                **_expected("_fitted", tempered),
                "text": answer["text"],
                "tokens": answer["tokens"],
                "finished": answer["finished"],
                "answer": answer["answer"],
                "parts": answer["parts"],
                **{name: answer[name] for name in ("turns", "end") if name in answer},
            }
        )
    return rows


def _expected(suffix: str, group: Sequence[Row]) -> dict[str, float]:
    return {
        f"{name}{suffix}": round(average(record[column] for record in group), DIGITS)
        for name, column in (("expected_reward", "reward"), ("probability_correct", "correct"))
    }


def _parsed(record: Row) -> bool:
    return bool(record["status"] == "scored")


def _in_form(record: Row) -> bool:
    return bool(record["parts"].get("format_valid", _parsed(record)) == 1)


def verdicts(values: Iterable[Any]) -> NDArray[np.bool_]:
    return np.array([bool(value) for value in values])


def numbers(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([float(value) for value in values])


def average(values: Iterable[Any]) -> float:
    return float(np.mean([float(value) for value in values]))

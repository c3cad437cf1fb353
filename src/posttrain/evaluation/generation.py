"""What a policy that writes its answers is worth: one record per completion, and figures over records.

A record is one JSON line of data/sample or of an evaluation; `score_completion` alone makes it:

    id, variant, index           the question, how the prompt asked, the number of the draw
    text, tokens, finished       the completion, its length in tokens, whether it ended by itself
    status, failure              scored | unparseable | unscorable; the first failure, None if right
    value, answer                what the program executes to, what the text states; None if neither
    components, reward           the parts of the reward and their weighted mean
    quality                      what ranks right answers among themselves, by part
    correct, program_correct     the program gives the gold answer; it equals the gold program
    answer_strict, answer_lenient, valid_json     of the text alone; JSON is not every task's form

Every rate has all questions of the split below the line: what cannot be read is not left out.

    pass@k       mean over questions of 1 - C(n - c, k) / C(n, k), c right ones of n draws: the unbiased
                 estimate of the chance that one of k draws is right (Chen et al. 2021, eq. 1)
    majority@k   of the first k draws, the answer that most programs execute to (Wang et al. 2022,
                 self-consistency). What does not execute has no vote, unless nothing does; then, as
                 in a tie, the first drawn counts

Open evaluation lets a selector choose among the n draws of a question. Identical texts are one
candidate, with the number of its copies; texts that do not execute are left out unless all are
such, as in the vote. No gold answer is added. The rules compared:

    greedy, majority   the greedy answer; majority@n
    random, oracle     expected value of a draw taken at random; the best draw, a right one if there is one
    selector           the candidate with the highest score; copies do not count
    weighted_vote      sum of copies * exp(score) over the candidates of each executed answer, the
                       largest sum wins: the vote, each draw with the selector's unnormalised
                       probability as weight (Li et al. 2023, DiVeRSe); its best candidate is taken

Left out: majority@k over all subsets of k draws (the first k are taken), and calling the selector.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.errors import UserError
from posttrain.evaluation.intervals import jeffreys, percentiles, resample_means
from posttrain.files import sha256_file
from posttrain.tasks import Example, Task

Row = Mapping[str, Any]
Columns = dict[str, NDArray[Any]]  # name -> (N,), one value per question; bool where it is a rate

DIGITS = 6
RIGHT = "right"
RULES = ("greedy", "random", "majority", "selector", "weighted_vote", "oracle")


def evaluator_hash() -> str:
    """Changes whenever the definitions of this file do; predictions carry it."""
    return sha256_file(Path(__file__))


# ------------------------------------------------------------------------------- records


def score_completion(
    task: Task,
    example: Example,
    text: str,
    tolerance: float,
    weights: Mapping[str, float],
    *,
    variant: str,
    index: int,
    tokens: int,
    finished: bool,
) -> dict[str, Any]:
    """The record of one completion. `tokens` and `finished` are what the sampler says of it."""
    verdict = task.score(text, example, tolerance)
    return {
        "id": example["id"],
        "variant": variant,
        "index": index,
        "text": text,
        "tokens": tokens,
        "finished": finished,
        "status": verdict.status,
        "failure": verdict.failure,
        "value": verdict.value,
        "answer": verdict.answer,
        "components": dict(verdict.components),
        "quality": {name: round(part, DIGITS) for name, part in verdict.quality.items()},
        "reward": round(task.reward(verdict.components, weights), DIGITS),
        "correct": verdict.execution_correct,
        "program_correct": verdict.program_correct,
        "answer_strict": verdict.answer_strict,
        "answer_lenient": verdict.answer_lenient,
        "valid_json": is_json_object(text),
    }


def is_json_object(text: str) -> bool:
    """Whether the whole text is one JSON object, of whatever keys."""
    try:
        # Numbers stay text: one of 5,000 digits is valid JSON, and no int.
        return isinstance(json.loads(text, parse_int=str, parse_float=str), dict)
    except (ValueError, RecursionError):
        return False


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
        "execution_accuracy": _verdicts(record["correct"] for record in records),
        "program_accuracy": _verdicts(record["program_correct"] for record in records),
        "answer_strict": _verdicts(record["answer_strict"] for record in records),
        "answer_lenient": _verdicts(record["answer_lenient"] for record in records),
        "valid_json": _verdicts(record["valid_json"] for record in records),
        "parsed": _verdicts(_parsed(record) for record in records),
        "unscorable": _verdicts(record["status"] == "unscorable" for record in records),
        "unfinished": _verdicts(not record["finished"] for record in records),
        "reward": _numbers(record["reward"] for record in records),
        "tokens": _numbers(record["tokens"] for record in records),
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
        columns[f"majority_at_{k}"] = _verdicts(
            majority_at_k(group, k)["correct"] for group in groups
        )
    return columns | {
        "parsed": _numbers(_average(map(_parsed, group)) for group in groups),
        "valid_json": _numbers(
            _average(record["valid_json"] for record in group) for group in groups
        ),
        "unfinished": _numbers(
            _average(not record["finished"] for record in group) for group in groups
        ),
        "reward": _numbers(_average(record["reward"] for record in group) for group in groups),
        "tokens": _numbers(_average(record["tokens"] for record in group) for group in groups),
        "distinct": _numbers(len({record["text"] for record in group}) / n for group in groups),
    }


def mean_quality(records: Sequence[Row]) -> dict[str, float]:
    """The mean over all draws of each part of their quality; what is unparseable has none of it."""
    return {
        part: round(_average(record["quality"][part] for record in records), DIGITS)
        for part in records[0]["quality"]
    }


# ------------------------------------------------------------------------------- open evaluation


def candidates(group: Sequence[Row]) -> list[dict[str, Any]]:
    """What a selector may choose from: distinct texts in the order drawn, each with its `copies`.

    Texts whose program does not execute are left out, unless all are such.
    """
    executed = [record for record in group if record["value"] is not None]
    copies = Counter(record["text"] for record in executed or group)
    first: dict[str, Row] = {}
    for record in executed or group:
        first.setdefault(record["text"], record)
    return [{**record, "copies": copies[text]} for text, record in first.items()]


def open_pool(task: Task, example: Example, group: Sequence[Row]) -> dict[str, Any]:
    """The candidates of a question as a pool that a selector reads (as in data/rewards).

    Pools differ in size. The selector reads the prompt it was trained on, however the draws were
    asked for.
    """
    return {
        "id": example["id"],
        "prompt": task.render_prompt(example),
        "candidates": [
            {
                "text": made["text"],
                "reward": made["reward"],
                "correct": made["correct"],
                "copies": made["copies"],
            }
            for made in candidates(group)
        ],
    }


def open_rows(
    greedy: Sequence[Row], groups: Sequence[Sequence[Row]], scores: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    """Per question, `correct` and `reward` of what each of `RULES` chooses.

    groups: the draws of each question; scores: the selector's logits of its `candidates`, in their
    order. `UserError` names the question whose scores are missing, or are no numbers.
    """
    rows = []
    for answer, group, logits in zip(greedy, groups, scores, strict=True):
        made = candidates(group)
        name = answer["id"]
        if any(record["id"] != name for record in group):
            raise UserError(f"{name}: its greedy answer stands beside draws of another question")
        if len(logits) != len(made):
            raise UserError(f"{name}: {len(logits)} scores for {len(made)} candidates")
        values = np.array(logits, dtype=np.float64)
        if not np.isfinite(values).all():
            raise UserError(f"{name}: the selector's scores are not finite")
        chosen = {
            "greedy": answer,
            "majority": majority_at_k(group, len(group)),
            "selector": made[int(values.argmax())],
            "weighted_vote": _weighted_vote(made, values),
            "oracle": max(group, key=lambda record: (record["correct"], record["reward"])),
        }
        of_rule = {rule: _worth(record) for rule, record in chosen.items()}
        of_rule["random"] = {
            key: _average(record[key] for record in group) for key in ("correct", "reward")
        }
        rows.append(
            {
                "id": name,
                "samples": len(group),
                "candidates": len(made),
                "chosen": chosen["selector"]["text"],
                **{rule: of_rule[rule] for rule in RULES},
            }
        )
    return rows


def open_evaluation(rows: Sequence[Row]) -> dict[str, float]:
    """Means of `open_columns`, the number of questions, and mean candidates per question."""
    columns = open_columns(rows)
    offered = {"candidates": _numbers(row["candidates"] for row in rows)}
    return {"questions": len(rows), **means(offered), **means(columns)}


def open_columns(rows: Sequence[Row]) -> Columns:
    """Per question, accuracy and reward of each rule, and what the selector gains in accuracy."""
    if not rows:
        raise UserError("there are no questions to choose answers for")
    columns: Columns = {}
    for rule in RULES:
        right = [row[rule]["correct"] for row in rows]
        columns[f"{rule}_accuracy"] = _numbers(right) if rule == "random" else _verdicts(right)
        columns[f"{rule}_reward"] = _numbers(row[rule]["reward"] for row in rows)
    selector = columns["selector_accuracy"].astype(np.float64)
    for rule in ("greedy", "random", "majority"):
        columns[f"selector_over_{rule}"] = selector - columns[f"{rule}_accuracy"]
    return columns


def _weighted_vote(made: Sequence[Row], logits: NDArray[np.float64]) -> Row:
    mass = np.exp(logits - logits.max())
    votes: dict[Any, float] = {}
    for candidate, weight in zip(made, mass, strict=True):
        value = candidate["value"]
        votes[value] = votes.get(value, 0.0) + candidate["copies"] * float(weight)
    best = max(range(len(made)), key=lambda i: (votes[made[i]["value"]], logits[i]))
    return made[best]


def _worth(record: Row) -> dict[str, Any]:
    return {"correct": bool(record["correct"]), "reward": float(record["reward"])}


# ------------------------------------------------------------------------------- comparison


def prediction_rows(
    split: str, greedy: Sequence[Row], groups: Sequence[Sequence[Row]] | None = None
) -> list[dict[str, Any]]:
    """One row per question in the form of a selector's predictions, which `compare` pairs by question.

    The greedy answer takes the place of the chosen candidate, its failure (or `right`) that of the
    candidate's kind. best_reward is 1, what a right answer in the right form earns: there is no pool
    that could offer less, so the reward ratio is the reward. With `groups`, the draws of each
    question, mean_reward and probability_correct are means over the draws; without, the policy is
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
                "mean_reward": round(_average(record["reward"] for record in group), DIGITS),
                "probability_correct": round(
                    _average(record["correct"] for record in group), DIGITS
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


def _verdicts(values: Iterable[Any]) -> NDArray[np.bool_]:
    return np.array([bool(value) for value in values])


def _numbers(values: Iterable[Any]) -> NDArray[np.float64]:
    return np.array([float(value) for value in values])


def _average(values: Iterable[Any]) -> float:
    return float(np.mean([float(value) for value in values]))

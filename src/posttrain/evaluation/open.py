"""Open evaluation: a selector chooses among the generator's answers to a question; no gold answer is added.

The answers to a question are the greedy one and the n draws. Identical texts are one candidate, with the number of its
copies; texts that do not execute are left out unless all are such, as in a vote. The rules compared:

    greedy, random     the greedy answer; expected value of a candidate taken at random, copies not counted
    majority           what most of the answers execute to (the greedy one in a tie that it is part of)
    oracle             right if any answer is, and the largest reward of any
    selector           the candidate with the highest score, of equals the first (greedy before the draws); copies do
                       not count
    weighted_vote      sum of copies * exp(score) over the candidates of each executed answer, the
                       largest sum wins: the vote, each answer with the selector's unnormalised
                       probability as weight (Li et al. 2023, DiVeRSe); its best candidate is taken

Left out: calling the selector.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.errors import UserError
from posttrain.evaluation.generation import (
    Columns,
    Row,
    average,
    majority_at_k,
    means,
    numbers,
    verdicts,
)
from posttrain.tasks import Example, Task

RULES = ("greedy", "random", "majority", "selector", "weighted_vote", "oracle")


def candidates(answers: Sequence[Row]) -> list[dict[str, Any]]:
    """What a selector may choose from: distinct texts in the order given, each with its `copies`.

    Texts whose program does not execute are left out, unless all are such.
    """
    executed = [record for record in answers if record["value"] is not None]
    copies = Counter(record["text"] for record in executed or answers)
    first: dict[str, Row] = {}
    for record in executed or answers:
        first.setdefault(record["text"], record)
    return [{**record, "copies": copies[text]} for text, record in first.items()]


def open_pool(task: Task, example: Example, answers: Sequence[Row]) -> dict[str, Any]:
    """The candidates of a question, its greedy answer and draws, as a pool that a selector reads (as in data/rewards).

    Pools differ in size. The selector reads the prompt it was trained on, however the draws were
    asked for. `UserError` when an answer is another question's.
    """
    others = [record["id"] for record in answers if record["id"] != example["id"]]
    if others:
        raise UserError(f"{example['id']}: answers to {others[0]} stand in its place")
    return {
        "id": example["id"],
        "prompt": task.render_prompt(example),
        "candidates": [
            {"text": made["text"], "reward": made["reward"]} for made in candidates(answers)
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
        answers = [answer, *group]
        made = candidates(answers)
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
            "majority": majority_at_k(answers, len(answers)),
            "selector": made[int(values.argmax())],
            "weighted_vote": _weighted_vote(made, values),
        }
        of_rule = {rule: _worth(record) for rule, record in chosen.items()}
        of_rule["random"] = {
            key: average(record[key] for record in made) for key in ("correct", "reward")
        }
        of_rule["oracle"] = {
            "correct": any(record["correct"] for record in answers),
            "reward": max(float(record["reward"]) for record in answers),
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
    offered = {"candidates": numbers(row["candidates"] for row in rows)}
    return {"questions": len(rows), **means(offered), **means(columns)}


def open_columns(rows: Sequence[Row]) -> Columns:
    """Per question, accuracy and reward of each rule, and what the selector gains in accuracy."""
    if not rows:
        raise UserError("there are no questions to choose answers for")
    columns: Columns = {}
    for rule in RULES:
        right = [row[rule]["correct"] for row in rows]
        columns[f"{rule}_accuracy"] = numbers(right) if rule == "random" else verdicts(right)
        columns[f"{rule}_reward"] = numbers(row[rule]["reward"] for row in rows)
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

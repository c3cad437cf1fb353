"""Open evaluation: a selector chooses among the generator's answers to a question; no gold answer is added.

The answers to a question are the greedy one and the n draws. Each is read with the result that its program gives, in the
form asked for, in place of the number that it states (`Task.calculate`): the candidates that selectors are trained on state
that, and a small generator cannot calculate. Rewards are those of that text. Identical texts are one candidate, with the
number of its copies; texts that do not execute are left out unless all are such, as in a vote. The rules compared:

    greedy, random     the greedy answer; expected value of a candidate taken at random, copies not counted
    majority           what most of the answers execute to (the greedy one in a tie that it is part of)
    oracle             right if any answer is, and the largest reward of any
    selector           the candidate with the highest score
    weighted_vote      sum of copies * exp(score) over the candidates of each executed answer, the largest sum wins: the
                       vote, each answer with the selector's unnormalised probability as weight (Li et al. 2023, DiVeRSe)
    likelihood         sum of p(candidate) over the candidates of each executed answer, p the generator's probability
    product            the same sum of p(candidate) * exp(score): a product of the two policies (Hinton 2002, products
                       of experts), each with weight 1. The selector learned from pools that say nothing of how likely
                       an answer is to be written

Of the answer that wins a sum the candidate with the largest part of it is taken; of equals the first, greedy before the
draws. p is that of the texts which the generator wrote for the candidate, at temperature 1, each to its end: less than it
gives the candidate, as it would have written other numbers beside the same program.

Left out: calling selector and generator; heads that scale or cap their logits (Gemma 2, Cohere), whose likelihoods the
selector reads without that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.core.errors import UserError
from posttrain.measures.answers import (
    DIGITS,
    Columns,
    Row,
    average,
    majority_at_k,
    means,
    numbers,
    verdicts,
)
from posttrain.rollouts.record import score_completion
from posttrain.tasks import Example, Task

RULES = (
    "greedy",
    "random",
    "majority",
    "likelihood",
    "selector",
    "weighted_vote",
    "product",
    "oracle",
)
ASKING = ("selector", "weighted_vote", "product")  # rules that ask the selector
OTHERS = ("greedy", "random", "majority", "likelihood")  # what those are compared with


def calculated(
    task: Task, example: Example, answer: Row, tolerance: float, weights: Mapping[str, float]
) -> dict[str, Any]:
    """The record of an answer with its results calculated, scored again; `written` is its text before.

    `tokens` and `finished` are those of what was written. `UserError` when the answer is another question's.
    """
    if answer["id"] != example["id"]:
        raise UserError(f"{example['id']}: answers to {answer['id']} stand in its place")
    record = score_completion(
        task,
        example,
        task.calculate(answer["text"], example),
        tolerance,
        weights,
        variant=answer["variant"],
        index=answer["index"],
        tokens=answer["tokens"],
        finished=answer["finished"],
    )
    return {**record, "written": answer["text"]}


def candidates(answers: Sequence[Row]) -> list[dict[str, Any]]:
    """What may be chosen: distinct texts in the order given, each with its `copies` and all that was `written` for it.

    answers: as `calculated`. Texts whose program does not execute are left out, unless all are such.
    """
    executed = [record for record in answers if record["value"] is not None]
    made: dict[str, dict[str, Any]] = {}
    for record in executed or answers:
        one = made.setdefault(record["text"], {**record, "copies": 0, "written": []})
        one["copies"] += 1
        if record["written"] not in one["written"]:
            one["written"].append(record["written"])
    return list(made.values())


def open_pool(task: Task, example: Example, texts: Sequence[str]) -> dict[str, Any]:
    """The texts as a pool that a policy reads (as in data/rewards, without rewards).

    Pools differ in size. The prompt is the one policies are trained on, however the draws were asked for.
    """
    return {
        "id": example["id"],
        "prompt": task.render_prompt(example),
        "candidates": [{"text": text, "reward": 0.0} for text in texts],
    }


def open_rows(
    groups: Sequence[Sequence[Row]],
    scores: Sequence[Sequence[float]],
    likelihoods: Sequence[Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Per question, `correct` and `reward` of what each of `RULES` chooses.

    groups: the answers to each question as `calculated`, the greedy one first; scores: the selector's logits of its
    `candidates`, in their order; likelihoods: the generator's log-probability of each text that was `written`.
    `UserError` names the question whose scores are missing, or are no numbers.
    """
    rows = []
    for answers, logits, written in zip(groups, scores, likelihoods, strict=True):
        made, name = candidates(answers), answers[0]["id"]
        values = _finite(logits, len(made), f"{name}: the selector")
        logp = _log_probabilities(made, written, name)
        copies = np.array([one["copies"] for one in made])
        chosen = {
            "greedy": answers[0],
            "majority": majority_at_k(answers, len(answers)),
            "likelihood": _vote(made, np.exp(logp - logp.max())),
            "selector": made[int(values.argmax())],
            "weighted_vote": _vote(made, copies * np.exp(values - values.max())),
            "product": _vote(made, np.exp(values + logp - (values + logp).max())),
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
                "samples": len(answers) - 1,
                "candidates": [
                    {
                        **{key: one[key] for key in ("text", "value", "copies", "correct")},
                        "score": round(float(score), DIGITS),
                        "log_probability": round(float(own), DIGITS),
                    }
                    for one, score, own in zip(made, values, logp, strict=True)
                ],
                **{rule: of_rule[rule] for rule in RULES},
            }
        )
    return rows


def open_evaluation(rows: Sequence[Row]) -> dict[str, float]:
    """Means of `open_columns`, the number of questions, and mean candidates per question."""
    columns = open_columns(rows)
    offered = {"candidates": numbers(len(row["candidates"]) for row in rows)}
    return {"questions": len(rows), **means(offered), **means(columns)}


def open_columns(rows: Sequence[Row]) -> Columns:
    """Per question, accuracy and reward of each rule, and what the rules that ask the selector gain on the rest."""
    if not rows:
        raise UserError("there are no questions to choose answers for")
    columns: Columns = {}
    for rule in RULES:
        right = [row[rule]["correct"] for row in rows]
        columns[f"{rule}_accuracy"] = numbers(right) if rule == "random" else verdicts(right)
        columns[f"{rule}_reward"] = numbers(row[rule]["reward"] for row in rows)
    for rule in ASKING:
        chosen = columns[f"{rule}_accuracy"].astype(np.float64)
        for other in OTHERS:
            columns[f"{rule}_over_{other}"] = chosen - columns[f"{other}_accuracy"]
    return columns


def _log_probabilities(
    made: Sequence[Row], written: Mapping[str, float], name: str
) -> NDArray[np.float64]:
    """The generator's, of each candidate: of all the texts that it wrote for it."""
    missing = [text for one in made for text in one["written"] if text not in written]
    if missing:
        raise UserError(f"{name}: the generator gave no score for {missing[0][:60]!r}")
    own = [np.logaddexp.reduce([written[text] for text in one["written"]]) for one in made]
    return _finite(own, len(made), f"{name}: the generator")


def _finite(values: Sequence[float], count: int, whose: str) -> NDArray[np.float64]:
    if len(values) != count:
        raise UserError(f"{whose} gave {len(values)} scores for {count} texts")
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{whose} gave scores that are not finite")
    return array


def _vote(made: Sequence[Row], weights: NDArray[np.float64]) -> Row:
    votes: dict[Any, float] = {}
    for candidate, weight in zip(made, weights, strict=True):
        votes[candidate["value"]] = votes.get(candidate["value"], 0.0) + float(weight)
    return made[max(range(len(made)), key=lambda i: (votes[made[i]["value"]], weights[i]))]


def _worth(record: Row) -> dict[str, Any]:
    return {"correct": bool(record["correct"]), "reward": float(record["reward"])}

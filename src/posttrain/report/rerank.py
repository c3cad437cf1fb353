"""Reranking: a selector chooses among the generator's answers to a question; no gold answer is added.

The answers to a question are the greedy one and n samples. In each, the stated number is replaced by the result of its
program, in the form asked for (`Task.calculate`): selectors are trained on such candidates, and a small generator
cannot calculate. Rewards are those of the resulting text. Identical texts are one candidate, with the number of its
copies; texts that do not execute are left out unless none does, as in a vote. The rules compared:

    greedy, random     the greedy answer; the expected value of a candidate taken at random, copies not counted
    majority           the value that most answers execute to (in a tie, that of the greedy answer if it is part of it)
    oracle             right if any answer is, with the largest reward of any
    selector           the candidate with the highest score
    weighted_vote      the value with the largest sum of copies * exp(score) over its candidates: a vote in which each
                       answer has the selector's unnormalised probability as weight (Li et al. 2023, DiVeRSe)
    likelihood         the value with the largest sum of p(candidate), where p is the generator's probability
    product            the value with the largest sum of p(candidate) * exp(score): a product of the two policies
                       (Hinton 2002, products of experts), each with weight 1. The pools that the selector is trained
                       on do not show how likely an answer is to be written

Of a value's candidates, the one with the largest part of the sum is taken; in a tie the first, the greedy one before
the samples. p is the probability, at temperature 1, of the texts that the generator wrote for the candidate, each to
its end. It underestimates the candidate's own, as the generator might have written other numbers beside the same
program.

The result to report is that of the rule that `choose_rule` takes by the validation questions, separately for each seed, so
that a seed's training and choice are one draw. Every other difference between rules is exploratory: the rules were written
after looks at validation and test questions, and nothing fixed beforehand which of them to compare.

Left out: running selector and generator; heads that scale or cap their logits (Gemma 2, Cohere), which the selector
ignores in likelihoods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.core.errors import UserError
from posttrain.measures.answers import average, majority_at_k, numbers, verdicts
from posttrain.measures.named import DIGITS, Columns, Row, means
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
ASKING = ("selector", "weighted_vote", "product")  # rules that use the selector, the simplest first
OTHERS = ("greedy", "random", "majority", "likelihood")  # rules that they are compared with


def calculated(
    task: Task, example: Example, answer: Row, weights: Mapping[str, float]
) -> dict[str, Any]:
    """The record of an answer with its result calculated and scored again; `written` is the original text.

    `tokens` and `finished` are those of the original text. `UserError` if the answer is to another question.
    """
    if answer["id"] != example["id"]:
        raise UserError(f"{example['id']}: answers to {answer['id']} stand in its place")
    record = score_completion(
        task,
        example,
        task.calculate(answer["text"], example),
        weights,
        variant=answer["variant"],
        index=answer["index"],
        tokens=answer["tokens"],
        finished=answer["finished"],
    )
    return {**record, "written": answer["text"]}


def candidates(answers: Sequence[Row]) -> list[dict[str, Any]]:
    """The distinct texts in the order given, each with its number of `copies` and the texts `written` for it.

    answers: as `calculated`. Texts whose program does not execute are left out, unless none does.
    """
    executed = [record for record in answers if record["value"] is not None]
    pool: dict[str, dict[str, Any]] = {}
    for record in executed or answers:
        one = pool.setdefault(record["text"], {**record, "copies": 0, "written": []})
        one["copies"] += 1
        if record["written"] not in one["written"]:
            one["written"].append(record["written"])
    return list(pool.values())


def rerank_pool(example: Example, texts: Sequence[str]) -> dict[str, Any]:
    """The texts as a pool that a selector can read, like those in data/pools but without rewards and of any size.

    The prompt is the one that policies are trained on, whatever prompt the samples had.
    """
    return {
        "id": example["id"],
        "prompt": example["prompts"]["direct"],
        "candidates": [{"text": text, "reward": 0.0} for text in texts],
    }


def rerank_rows(
    groups: Sequence[Sequence[Row]],
    scores: Sequence[Sequence[float]],
    likelihoods: Sequence[Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Per question, `correct` and `reward` of the choice by each of `RULES`.

    groups: the answers to each question as `calculated`, the greedy one first. scores: the selector's logits of its
    `candidates`, in their order. likelihoods: the generator's log-probability of each text that was `written`.
    `UserError`, with the question, if scores are missing or not finite.
    """
    rows = []
    for answers, logits, written in zip(groups, scores, likelihoods, strict=True):
        pool, name = candidates(answers), answers[0]["id"]
        values = _finite(logits, len(pool), f"{name}: the selector")
        logp = _log_probabilities(pool, written, name)
        copies = np.array([one["copies"] for one in pool])
        chosen = {
            "greedy": answers[0],
            "majority": majority_at_k(answers, len(answers)),
            "likelihood": _vote(pool, np.exp(logp - logp.max())),
            "selector": pool[int(values.argmax())],
            "weighted_vote": _vote(pool, copies * np.exp(values - values.max())),
            "product": _vote(pool, np.exp(values + logp - (values + logp).max())),
        }
        of_rule = {rule: _worth(record) for rule, record in chosen.items()}
        of_rule["random"] = {
            key: average(record[key] for record in pool) for key in ("correct", "reward")
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
                    for one, score, own in zip(pool, values, logp, strict=True)
                ],
                **{rule: of_rule[rule] for rule in RULES},
            }
        )
    return rows


def choose_rule(rows: Sequence[Row]) -> str:
    """The rule of `ASKING` that is right on most questions; in a tie, the one that stands first there."""
    columns = rerank_columns(rows)
    return max(ASKING, key=lambda rule: int(columns[f"{rule}_accuracy"].sum()))


def rerank_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """The means of `rerank_columns`, the number of questions, and the mean number of candidates."""
    columns = rerank_columns(rows)
    offered = {"candidates": numbers(len(row["candidates"]) for row in rows)}
    return {"questions": len(rows), **means(offered), **means(columns)}


def rerank_columns(rows: Sequence[Row]) -> Columns:
    """Per question, accuracy and reward of each rule, and the gain of each of `ASKING` over each of `OTHERS`."""
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
    pool: Sequence[Row], written: Mapping[str, float], name: str
) -> NDArray[np.float64]:
    """The generator's log-probability of each candidate: that of all the texts it wrote for it together."""
    missing = [text for one in pool for text in one["written"] if text not in written]
    if missing:
        raise UserError(f"{name}: the generator gave no score for {missing[0][:60]!r}")
    own = [np.logaddexp.reduce([written[text] for text in one["written"]]) for one in pool]
    return _finite(own, len(pool), f"{name}: the generator")


def _finite(values: Sequence[float], count: int, whose: str) -> NDArray[np.float64]:
    if len(values) != count:
        raise UserError(f"{whose} gave {len(values)} scores for {count} texts")
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise UserError(f"{whose} gave scores that are not finite")
    return array


def _vote(pool: Sequence[Row], weights: NDArray[np.float64]) -> Row:
    votes: dict[Any, float] = {}
    for candidate, weight in zip(pool, weights, strict=True):
        votes[candidate["value"]] = votes.get(candidate["value"], 0.0) + float(weight)
    return pool[max(range(len(pool)), key=lambda i: (votes[pool[i]["value"]], weights[i]))]


def _worth(record: Row) -> dict[str, Any]:
    return {"correct": bool(record["correct"]), "reward": float(record["reward"])}

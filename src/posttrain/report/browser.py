"""The data of the question browser, as plain lists and dicts that become one JSON block of the page.

    parts        [name, weight] of each part of the reward that occurs; those of an answer are given in this order, None
                 for one that its task does not score
    classes      names of the failure classes that occur, and `right` as the last
    questions    id, text, page, gold answer, and candidates with their rewards; for each policy's answer, its class and
                 whether it is right
    policies     family, name, and `against` (the index of SFT with the same seed, None for SFT itself); over all test
                 questions, `classes` ([class, number of answers]) and `right` (number of right answers); and `rows`,
                 one for each of `questions`

A page is a list of parts, {"line": [piece, ...]} or {"table": [[piece, ...], ...]}, where a piece is a text or [text,
place]. An answer is its text, its steps ([text, literal, value, error] each), the places it reads, the answer it
states, and the error if it has no steps. A selector's row has the chosen candidate and the logits of all; a generator's
row has the answer that it wrote. In an environment that has its `turns` ([text, action, whether it is valid, reward,
observation] each) and its `end` as well, and the question has the `prompt` before them. Classes and policies are given by
their index.

There are at most `limit` questions, the same for all policies (`choose`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.measures.answers import RIGHT, failure_class
from posttrain.measures.episodes import RETURN
from posttrain.report.compare import REFERENCE, Run, check_same_questions
from posttrain.tasks import Example, Explanation, Line, Piece, Task, is_question

Row = Mapping[str, Any]
DIGITS = 3  # of logits and rewards


@dataclass(frozen=True, slots=True)
class Policy:
    """Predictions of a trained selector or generator for the N test questions, and the class of each answer."""

    family: str
    policy: str
    seed: int
    predictions: Sequence[Row]
    classes: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.policy}-{self.seed}"


def selector_policy(run: Run, pools: Sequence[Row]) -> Policy:
    """The policy of a selector's run; its classes are those of the chosen candidates. `pools`: as in data/pools."""
    check_same_questions(f"selector {run.policy}-{run.seed}", run.predictions, "data/pools", pools)
    classes = [
        failure_class(pool["candidates"][row["chosen"]])
        for row, pool in zip(run.predictions, pools, strict=True)
    ]
    return Policy("selector", run.policy, run.seed, run.predictions, classes)


def generator_policy(run: Run) -> Policy:
    """The policy of a generator's run; its classes are the kinds of its predictions."""
    classes = [row["kind"] for row in run.predictions]
    return Policy("generator", run.policy, run.seed, run.predictions, classes)


def browser_data(
    task: Task,
    examples: Sequence[Example],
    pools: Sequence[Row],
    policies: Sequence[Policy],
    weights: Mapping[str, float],
    limit: int,
) -> dict[str, Any]:
    """The data that the module's docstring describes.

    examples: the N test questions. pools: theirs, as in data/pools, perhaps without candidates. weights: of the reward's
    parts. `UserError` unless the predictions of every policy are for the examples, in their order.
    """
    check_same_questions("data/pools", pools, "data/examples", examples)
    scored = [each for pool in pools for each in pool["candidates"][:1]]
    scored += [row for one in policies for row in one.predictions]
    offered = {name for row in scored for name in row.get("parts", ())}
    weights = {name: weight for name, weight in weights.items() if name in offered}
    for policy in policies:
        name = f"{policy.family} {policy.name}"
        check_same_questions(name, policy.predictions, "data/examples", examples)
    occurring = {name for policy in policies for name in policy.classes}
    occurring |= {failure_class(one) for pool in pools for one in pool["candidates"]}
    names = [*sorted(occurring - {RIGHT}), RIGHT]
    place = {(p.family, p.policy, p.seed): number for number, p in enumerate(policies)}
    shown = choose(policies, limit)
    total = sum(weights.values())
    questions = []
    for index in shown:
        example = examples[index]
        explained = task.explain(example, example["target"])
        candidates = [
            {
                **_scored(task, example, one, one["parts"], weights),
                "kind": one["kind"],
                "edit": one["edit"],
                "class": names.index(failure_class(one)),
                "right": bool(one["correct"]),
            }
            for one in pools[index]["candidates"]
        ]
        questions.append(
            {
                "id": example["id"],
                "text": example["question"],
                **(
                    {"prompt": example["prompts"]["direct"]}
                    if task.open is not None and not is_question(example)
                    else {}
                ),
                "page": page_parts(explained),
                "gold": {
                    **_answer(explained),
                    "operations": [step.operation for step in explained.steps],
                },
                "candidates": candidates,
                "classes": [names.index(policy.classes[index]) for policy in policies],
                "right": [bool(policy.predictions[index]["correct"]) for policy in policies],
            }
        )
    return {
        "parts": [[name, weight / total] for name, weight in weights.items()],
        "classes": names,
        "questions": questions,
        "policies": [
            {
                "family": policy.family,
                "name": policy.name,
                "against": None
                if policy.policy == REFERENCE
                else place.get((policy.family, REFERENCE, policy.seed)),
                "classes": sorted(Counter(map(names.index, policy.classes)).items()),
                "right": sum(bool(row["correct"]) for row in policy.predictions),
                "rows": [
                    _row(task, examples[index], policy.predictions[index], weights)
                    for index in shown
                ],
            }
            for policy in policies
        ],
    }


def choose(policies: Sequence[Policy], limit: int) -> list[int]:
    """The indices of the questions to show, in the order of the test set.

    On half of them the policies of a family disagree, a quarter are answered wrong by a whole family, and a quarter are
    answered right by all; where one kind has too few, the others fill up. Within a kind, rare failures come first.
    """
    count = Counter(name for policy in policies for name in policy.classes)
    kinds: tuple[list[int], ...] = ([], [], [])
    for index in range(len(policies[0].predictions) if policies else 0):
        families: dict[str, set[bool]] = {}
        for policy in policies:
            verdict = bool(policy.predictions[index]["correct"])
            families.setdefault(policy.family, set()).add(verdict)
        torn = any(len(verdicts) > 1 for verdicts in families.values())
        kinds[0 if torn else 1 if {False} in families.values() else 2].append(index)
    for kind in kinds:
        kind.sort(key=lambda index: min(count[policy.classes[index]] for policy in policies))
    quotas = (limit - 2 * (limit // 4), limit // 4, limit // 4)
    first = [i for kind, quota in zip(kinds, quotas, strict=True) for i in kind[:quota]]
    rest = [i for kind, quota in zip(kinds, quotas, strict=True) for i in kind[quota:]]
    return sorted([*first, *rest][:limit])


def page_parts(explained: Explanation) -> list[dict[str, Any]]:
    """The page as lists of lines and tables of pieces."""
    return [
        {"line": [_piece(piece) for piece in part.pieces]}
        if isinstance(part, Line)
        else {"table": [[_piece(piece) for piece in row] for row in part.rows]}
        for part in explained.page
    ]


def _row(
    task: Task, example: Example, prediction: Row, weights: Mapping[str, float]
) -> dict[str, Any]:
    if "chosen" in prediction:
        logits = [round(logit, DIGITS) for logit in prediction["logits"]]
        return {"chosen": prediction["chosen"], "logits": logits}
    if "turns" not in prediction or is_question(example):
        return {"answer": _scored(task, example, prediction, prediction["parts"], weights)}
    answer = _scored(task, example, prediction, {RETURN: prediction["reward"]}, weights)
    shown = ("text", "action", "valid", "reward", "observation")
    turns = [[turn[name] for name in shown] for turn in prediction["turns"]]
    return {"answer": answer | {"turns": turns, "end": prediction["end"]}}


def _scored(
    task: Task, example: Example, answer: Row, parts: Row, weights: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "text": answer["text"],
        **_answer(task.explain(example, answer["text"])),
        "reward": round(answer["reward"], DIGITS),
        "parts": [parts.get(name) for name in weights],
    }


def _answer(explained: Explanation) -> dict[str, Any]:
    return {
        "steps": [[step.text, step.literal, step.value, step.error] for step in explained.steps],
        "places": list(explained.places),
        "stated": explained.answer,
        "error": explained.error,
    }


def _piece(piece: Piece) -> str | list[str]:
    return [piece.text, piece.place] if piece.place else piece.text

"""What the browser of questions shows, as plain lists and dicts that become one JSON block of the page.

    components   [name, weight] of each part of the reward; weights sum to 1
    classes      names of the failure classes that occur, `right` at the end
    questions    id, text, page, gold answer, candidates with their rewards, and the class of each policy's answer
    policies     family, name, classes ([class, how many answers]), rows: the questions that are shown

A page is a list of parts, {"line": [piece, ...]} or {"table": [[piece, ...], ...]}, where a piece is a text or
[text, place]. An answer is its text, its steps ([text, literal, value, error] each), the places it reads, what it
states, and the error that left it without steps. A row of a selector has the chosen candidate and the logits of
all; a row of a generator has the answer that it wrote. Classes and questions are given by their index.

Of a policy at most `limit` questions are shown, failures first; other questions are not there at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.core.errors import UserError
from posttrain.measures.answers import RIGHT, failure_class
from posttrain.report.compare import Run
from posttrain.tasks import Example, Explanation, Line, Piece, Task

Row = Mapping[str, Any]
DIGITS = 3  # of logits and rewards


@dataclass(frozen=True, slots=True)
class Policy:
    """Predictions of a trained selector or generator on the N test questions, and the class of each answer."""

    family: str
    name: str
    predictions: Sequence[Row]
    classes: Sequence[str]


def selector_policy(run: Run, pools: Sequence[Row]) -> Policy:
    """`pools` as in data/rewards; a choice fails as the chosen candidate does."""
    name = f"{run.policy}-{run.seed}"
    _check_order(name, run.predictions, pools)
    classes = [
        failure_class(pool["candidates"][row["chosen"]])
        for row, pool in zip(run.predictions, pools, strict=True)
    ]
    return Policy("selector", name, run.predictions, classes)


def generator_policy(run: Run) -> Policy:
    """The kind of a generator's prediction is its class."""
    classes = [row["kind"] for row in run.predictions]
    return Policy("generator", f"{run.policy}-{run.seed}", run.predictions, classes)


def browser_data(
    task: Task,
    examples: Sequence[Example],
    pools: Sequence[Row],
    policies: Sequence[Policy],
    weights: Mapping[str, float],
    limit: int,
) -> dict[str, Any]:
    """The data of the module's docstring.

    examples: the N test questions; pools: theirs, as in data/rewards; weights: of the reward's components.
    `UserError` when the predictions of a policy are not those of the examples, in their order.
    """
    _check_order("data/rewards", pools, examples)
    for policy in policies:
        _check_order(policy.name, policy.predictions, examples)
    found = {name for policy in policies for name in policy.classes}
    found |= {failure_class(made) for pool in pools for made in pool["candidates"]}
    names = [*sorted(found - {RIGHT}), RIGHT]
    shown = [choose(policy, limit) for policy in policies]
    embedded = sorted({index for rows in shown for index in rows})
    place = {index: number for number, index in enumerate(embedded)}
    total = sum(weights.values())
    questions = []
    for index in embedded:
        example = examples[index]
        explained = task.explain(example, task.render_target(example))
        candidates = [
            {
                **_scored(task, example, made, made["reward_components"], weights),
                "kind": made["kind"],
                "edit": made["edit"],
                "class": names.index(failure_class(made)),
            }
            for made in pools[index]["candidates"]
        ]
        questions.append(
            {
                "id": example["id"],
                "text": example["question"],
                "page": page_parts(explained),
                "gold": {
                    **_answer(explained),
                    "operations": [step.operation for step in explained.steps],
                },
                "candidates": candidates,
                "classes": [names.index(policy.classes[index]) for policy in policies],
            }
        )
    return {
        "components": [[name, weight / total] for name, weight in weights.items()],
        "classes": names,
        "questions": questions,
        "policies": [
            {
                "family": policy.family,
                "name": policy.name,
                "classes": sorted(Counter(map(names.index, policy.classes)).items()),
                "rows": [
                    {
                        "question": place[index],
                        **_row(task, examples[index], policy.predictions[index], weights),
                    }
                    for index in rows
                ],
            }
            for policy, rows in zip(policies, shown, strict=True)
        ],
    }


def choose(policy: Policy, limit: int) -> list[int]:
    """Which questions of a policy are shown: wrong programs first, then other failures, then right answers.

    Where the wrong ones are more than `limit`, those of rare classes are kept. The order within each of the three is
    that of the test set.
    """
    classes, rows = policy.classes, policy.predictions
    count = Counter(classes)

    def rank(index: int) -> tuple[bool, bool]:
        return bool(rows[index]["correct"]), classes[index] == RIGHT

    kept = sorted(range(len(rows)), key=lambda i: (*rank(i), count[classes[i]], i))[:limit]
    return sorted(kept, key=lambda i: (*rank(i), i))


def page_parts(explained: Explanation) -> list[dict[str, Any]]:
    """The page as lists of pieces."""
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
    return {"answer": _scored(task, example, prediction, prediction["components"], weights)}


def _scored(
    task: Task, example: Example, made: Row, components: Row, weights: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "text": made["text"],
        **_answer(task.explain(example, made["text"])),
        "reward": round(made["reward"], DIGITS),
        "components": [components[name] for name in weights],
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


def _check_order(name: str, rows: Sequence[Row], expected: Sequence[Row]) -> None:
    if len(rows) != len(expected):
        raise UserError(f"{name} has {len(rows)} test questions of {len(expected)}; run dvc repro")
    for row, wanted in zip(rows, expected, strict=True):
        if row["id"] != wanted["id"]:
            raise UserError(
                f"{name} has question {row['id']} where {wanted['id']} is; run dvc repro"
            )

"""The mixture, as offered by `posttrain.tasks.get_task("mixture")`; see `Task` there.

Each function goes by the part of the example to the function of the same name of that part's task. So a stage that asks for
one of these depends on those of the parts' tasks with this name, and on no others (`core/code.py`).

A split of `datasets.NAME.SPLIT` examples has as many of each part as its weight in `options.parts` says (by largest
remainders), drawn by the seed from that part's own examples, which its own entry and seed make, and in random order.

Where a part is an environment, all parts are played: a question of a task of one turn is an episode of one turn, of the form
`answer` (`posttrain.environments.question`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.params import Params, StoredDataset, Variant
from posttrain.core.schema import Rate, Section
from posttrain.tasks import (
    ANSWER,
    Candidate,
    Example,
    Explanation,
    Score,
    get_task,
    read_options,
)
from posttrain.tasks.others import other_answers
from posttrain.tasks.subset import subset

if TYPE_CHECKING:
    from posttrain.environments import Environment

PARTS = "parts.json"  # in data/fetch: the task of each part
task_named = cache(get_task)


class Options(Section):
    """parts: weights of the data sets, in drawing. weights: in the mean over the parts; those of `parts` if None."""

    parts: dict[str, Rate]
    weights: dict[str, Rate] | None = None


# ------------------------------------------------------------------------------- data


def fetch(params: Params, directory: Path) -> None:
    """Put the raw data of each part into a folder of its name."""
    read_options(params, Options)
    tasks = {part: params.datasets[part].task for part in params.parts}
    with atomic_directory(directory) as output:
        for part, name in tasks.items():
            task_named(name).fetch(params.of_part(part), output / part)
        write_json(output / PARTS, tasks)


def audit(source: Path, directory: Path) -> dict[str, Any]:
    """Audit each part by itself, from and into folders of its name; the metrics are by part."""
    tasks: dict[str, str] = read_json(source / PARTS)
    with atomic_directory(directory) as output:
        return {
            part: task_named(name).audit(source / part, output / part)
            for part, name in tasks.items()
        }


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited parts in `source`; `UserError` if a part has too few."""
    dataset, drawn = params.selected_dataset, []
    played = {name: task_named(name).open is not None for name in params.tasks[1:]}
    for part, count in counts(params, split).items():
        entry, name = params.datasets[part], params.datasets[part].task
        rows = task_named(name).examples(params.of_part(part), split, source / part)
        limit = getattr(entry, split)
        if limit is not None and isinstance(entry, StoredDataset):
            rows = subset(rows, limit, entry.seed).rows
        found = subset(rows, count, dataset.seed)
        if found.of < count:
            raise UserError(
                f"params.yaml: datasets.{params.dataset}.{split}: {count} of its {getattr(dataset, split)} examples are "
                f"of {part}, which has {found.of}"
            )
        more: dict[str, Any] = {"part": part, "task": name}
        if any(played.values()) and not played[name]:
            more |= {"form": ANSWER, "turns": 1}
        drawn += [{**row, "id": f"{part}/{row['id']}", **more} for row in found.rows]
    Random(f"{dataset.seed}/{split}").shuffle(drawn)
    yield from drawn


def counts(params: Params, split: str) -> dict[str, int]:
    """The number of examples of each part of a split, by largest remainders; `UserError` if a part has none."""
    size, weights = getattr(params.selected_dataset, split), params.parts
    quotas = {part: size * weight / sum(weights.values()) for part, weight in weights.items()}
    found = {part: int(quota) for part, quota in quotas.items()}
    remainders = sorted(quotas, key=lambda part: found[part] - quotas[part])
    for part in remainders[: size - sum(found.values())]:
        found[part] += 1
    for part, count in found.items():
        if count == 0:
            raise UserError(
                f"params.yaml: datasets.{params.dataset}.{split}: of {size} examples none are of {part}, by its weight"
            )
    return found


def measure(examples: Iterable[Example]) -> dict[str, Any]:
    """By part, the number of its examples and what its task measures."""
    return {
        "parts": {
            part.name: {"examples": sum(1 for _ in part), **part.task.measure(part)}
            for part in parts_of(examples)
        }
    }


def baselines(examples: Iterable[Example]) -> dict[str, dict[str, float]]:
    """By part, the accuracies of its task's baselines."""
    return {part.name: dict(part.task.baselines(part)) for part in parts_of(examples)}


@dataclass(frozen=True, slots=True)
class Part:
    """The examples of one part, read again at each iteration."""

    name: str
    task_name: str
    whole: Iterable[Example]

    def __iter__(self) -> Iterator[Example]:
        return (example for example in self.whole if example["part"] == self.name)

    @property
    def task(self) -> Any:
        return task_named(self.task_name)


def parts_of(examples: Iterable[Example]) -> list[Part]:
    """The parts of a split, by name."""
    names = {example["part"]: example["task"] for example in examples}
    return [Part(part, name, examples) for part, name in sorted(names.items())]


# ------------------------------------------------------------------------------- of one example


def prompt(example: Example, variant: Variant = "direct") -> str:
    """What a model reads."""
    return task_named(example["task"]).prompt(example, variant)


def target(example: Example) -> str:
    """The gold answer."""
    return task_named(example["task"]).target(example)


def score(text: str, example: Example) -> Score:
    """The score of an answer."""
    return task_named(example["task"]).score(text, example)


def score_all(texts: Sequence[str], examples: Sequence[Example]) -> list[Score]:
    """`score` of each text as an answer to the example at its place; those of a task together."""
    places: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        places.setdefault(example["task"], []).append(place)
    scores: dict[int, Score] = {}
    for name, some in places.items():
        found = task_named(name).scores([texts[i] for i in some], [examples[i] for i in some])
        scores |= dict(zip(some, found, strict=True))
    return [scores[place] for place in range(len(texts))]


def open(params: Params, example: Example) -> Environment:
    """The environment in which the example's episodes are played."""
    start = task_named(example["task"]).open
    assert start is not None
    return start(params.of_part(example["part"]), example)


def calculate(text: str, example: Example) -> str:
    """The answer with its calculation's own result."""
    return task_named(example["task"]).calculate(text, example)


def explain(example: Example, text: str) -> Explanation:
    """The page, and an answer's steps."""
    return task_named(example["task"]).explain(example, text)


# ------------------------------------------------------------------------------- of all


def candidates(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], Sequence[Candidate]]:
    """make(example, n) by part, which learns from the training examples of that part alone.

    A part whose task makes no candidates gets the gold answers of its other questions. `UserError` if those are too few:
    all pools of a data set are equally large.
    """
    makers = {
        part.name: (part.task.candidates or other_answers)(params.of_part(part.name), part)
        for part in parts_of(train)
    }

    def make(example: Example, count: int) -> Sequence[Candidate]:
        made: Sequence[Candidate] = makers[example["part"]](example, count)
        if len(made) < min(count, params.pools.count):
            raise UserError(
                f"{example['id']}: the training questions of {example['part']} have {len(made)} different answers, and "
                f"pools.count asks for {params.pools.count}"
            )
        return made

    return make


def describe(params: Params) -> dict[str, str]:
    """The weights of the parts, and the lines of each."""
    told = {"parts": ", ".join(f"{part} {weight:g}" for part, weight in params.parts.items())}
    for part in params.parts:
        lines: Mapping[str, str] = task_named(params.datasets[part].task).describe(
            params.of_part(part)
        )
        told |= {f"{part}, {name}": line for name, line in lines.items()}
    return told

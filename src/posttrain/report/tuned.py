"""The record of `posttrain.tune`, metrics/tuning.json: by family and method, each value that was tried on validation.

A record says how a setting was chosen only if it is of the validation split, and if its choice is the best by its own
results; any other is refused. It says so of this run only if the data set, the model, the validation questions and all other
settings of the method are those of then, and params.yaml has the values that it chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Literal

from pydantic import Field

from posttrain.core.errors import UserError
from posttrain.core.loop import DIGITS
from posttrain.core.schema import Positive, Section, Seed, check

RECORD = Path("metrics/tuning.json")
Values = dict[str, Any]  # setting -> value


class Tried(Section):
    """Values of the tuned settings, and the result of the training of each seed; or why one failed."""

    values: Values
    by_seed: list[float]
    failed: str | None = None


class Tuned(Section):
    """The tuning of one method.

    questions, questions_sha256: the number and the SHA-256 of the validation questions. measure: the key of a validation
    by which a training keeps its best weights; results are those of these weights. settings: the method's others. made_of:
    a digest of all that the trainings depend on. Until one has
    succeeded, the first three are 0 and empty. budget: trainings of the whole tuning. chosen: None until it is finished,
    or if all have failed.
    """

    split: Literal["val"]
    dataset: str
    model: str
    questions: Annotated[int, Field(ge=0)]
    questions_sha256: str
    measure: str
    seeds: Annotated[list[Seed], Field(min_length=1)]
    settings: Values
    made_of: str
    budget: Positive
    tried: list[Tried]
    chosen: Values | None


def best(tried: Sequence[Tried]) -> Values | None:
    """The values with the best mean over the seeds, of equals the smaller ones; None if all have failed."""
    rows = [row for row in tried if not row.failed]
    if not rows:
        return None
    # Equal means differ in their last bits.
    first = min(rows, key=lambda row: (-round(mean(row.by_seed), DIGITS), *row.values.values()))
    return first.values


def read_tuned(record: Any, family: str, method: str, source: str = str(RECORD)) -> Tuned | None:
    """A method's tuning in the parsed record; None if there is none. `UserError` if the record contradicts itself."""
    section = record.get(family, {}) if isinstance(record, dict) else {}
    if not isinstance(section, dict) or method not in section:
        return None
    where = f"{family}.{method}"
    tuned = check(Tuned, section[method], source, where)
    for row in tuned.tried:
        if not row.failed and len(row.by_seed) != len(tuned.seeds):
            raise UserError(
                f"{source}: {where}: {shown(row.values)} has {len(row.by_seed)} results for {len(tuned.seeds)} seeds"
            )
    whole = len(tuned.tried) * len(tuned.seeds) == tuned.budget
    if tuned.chosen is not None and not whole:
        raise UserError(
            f"{source}: {where}: {shown(tuned.chosen)} is chosen, but {tuned.budget} trainings were to be compared and "
            f"{len(tuned.tried) * len(tuned.seeds)} are there"
        )
    if tuned.chosen is not None and tuned.chosen != best(tuned.tried):
        raise UserError(
            f"{source}: {where}: {shown(tuned.chosen)} is chosen, but the best by its own results is "
            f"{shown(best(tuned.tried) or {})}; run python -m posttrain.tune {family} {method}"
        )
    return tuned


def differs(
    tuned: Tuned | None,
    *,
    dataset: str,
    model: str,
    questions_sha256: str,
    settings: Mapping[str, Any],
) -> str | None:
    """The first thing in which a tuning is not that of this run; None if its choice is in use, or if there is no tuning.

    settings: all of the method's now.
    """
    if tuned is None:
        return None
    if tuned.chosen is None:
        return "its tuning has no result"
    for name, then, now in (("dataset", tuned.dataset, dataset), ("model", tuned.model, model)):
        if then != now:
            return f"tuned for {name} {then}"
    if tuned.questions_sha256 != questions_sha256:
        return "tuned on other validation questions"
    for key, value in others(settings, tuned.chosen).items():
        if tuned.settings.get(key, value) != value or key not in tuned.settings:
            return f"tuned with {key} {tuned.settings.get(key, '(none)')}"
    for key, value in tuned.chosen.items():
        if settings[key] != value:
            return f"validation chose {key} {value:g}"
    return None


def others(settings: Mapping[str, Any], values: Mapping[str, Any]) -> Values:
    """A method's settings without those that are tuned, and without the questions of its validations."""
    left_out = {*values, "evaluation_questions"}
    return {key: value for key, value in settings.items() if key not in left_out}


def shown(values: Mapping[str, Any]) -> str:
    """`learning_rate=0.0003`."""
    return ", ".join(f"{key}={value}" for key, value in values.items())

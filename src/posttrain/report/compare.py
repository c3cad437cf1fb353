"""Compare the policies of a family on the same questions, each trained from several seeds.

`read_runs` reads and checks the predictions, `tables` turns them into arrays, and `compare` computes with arrays alone.
Values are means over seeds and questions. Each has a 95 % and an 80 % interval:

    rates           Jeffreys, for one seed and for all; the answers of several seeds to a question form a cluster
                    (`intervals.effective_count`)
    other means     bootstrap over questions, each question's value first averaged over seeds
    changes         the same, for the differences from the reference with the same seed on the same question

The references are SFT, with which all other policies are compared, and the control SFT+ (SFT trained on from where RL
begins), with which the RL methods are. A run without SFT+ has the changes against SFT alone.

So an interval covers other test questions for the same trained models, and the p-value of their change is that of a paired
permutation test on the same differences. With three seeds and more there is a second interval and p-value of each change,
those of the method: over other trainings and other questions (`measures.crossed`). What is said of methods follows from
these.

p-values are adjusted (Holm) for the number of changes that are read together: those of one table for readers, that is of
all its policies and measures against one reference. The tables against SFT and SFT+ ask two questions, and each is adjusted
for itself; so is each measure that no table shows, and each of the two kinds of p-value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl
from posttrain.core.manifest import check_code
from posttrain.core.not_trained import why_not_trained
from posttrain.core.params import CONTROL, FINE_TUNED, UNTRAINED
from posttrain.measures.crossed import crossed
from posttrain.measures.intervals import (
    Array,
    Interval,
    percentiles,
    rate_interval,
    resample_means,
)
from posttrain.measures.named import MEASURES, Measure, Row, measured
from posttrain.measures.significance import holm, sign_flip_p

LEVEL = 0.95
INNER_LEVEL = 0.80
SIGNIFICANCE = 0.05
REFERENCE = FINE_TUNED
REFERENCES = (CONTROL, REFERENCE)  # what changes are given against, the stricter one first
CONTROLS = (UNTRAINED, REFERENCE, CONTROL)  # policies that no RL method has trained
SPLIT = "test"


@dataclass(frozen=True, slots=True)
class Run:
    """Predictions of one trained policy for the test questions."""

    policy: str
    seed: int
    predictions: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % and 80 % intervals, the estimates for single seeds, and, if it is a change, its p-value.

    of_method: whether intervals and p-value count other trainings of the method, and not only other questions.
    """

    value: float
    interval: Interval | None = None
    inner_interval: Interval | None = None
    seeds: tuple[Estimate, ...] = ()
    p: float | None = None
    of_method: bool = False

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        values = [seed.value for seed in self.seeds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @property
    def significant(self) -> bool:
        """Whether a change is beyond noise, by its adjusted p-value."""
        return self.p is not None and self.p < SIGNIFICANCE

    @property
    def clear(self) -> bool:
        """Whether a change is significant; one of single models also needs every seed to change in the same direction."""
        agree = all(seed.value * self.value > 0 for seed in self.seeds)
        return self.significant and (self.of_method or agree)


@dataclass(frozen=True, slots=True)
class Result:
    """By measure, the values of a policy, and by reference and measure their changes.

    changes: of the method where there are enough seeds, else of these models. of_models: of these models alone.
    """

    values: Mapping[str, Estimate]
    changes: Mapping[str, Mapping[str, Estimate]]
    of_models: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of choice (or failure of an answer): its share of the questions, the share that is of this kind and right,
    and its mean reward."""

    share: Estimate
    right: float
    reward: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of a family's policies: the controls, then the methods in the order of params.yaml.

    kinds: by policy, the kinds of its choices (or failures of its answers). blind: test accuracy of the blind baselines,
    which choose by the candidates alone. left_out: policies that were not trained, and why. notes: sentences on the
    trainings, which stand after the findings.
    """

    family: str
    seeds: Sequence[int]
    questions: int
    results: Mapping[str, Result]
    kinds: Mapping[str, Mapping[str, Kind]]
    blind: Mapping[str, float]
    measures: Sequence[Measure] = MEASURES
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def methods(self) -> dict[str, Result]:
        """The results of the RL methods."""
        return {name: result for name, result in self.results.items() if name not in CONTROLS}

    @property
    def of_methods(self) -> bool:
        """Whether the changes are of methods; with few seeds they are of these models alone."""
        return any(
            change.of_method
            for reference in self.references
            for changes in self.against(reference).values()
            for change in changes.values()
        )

    @property
    def references(self) -> list[str]:
        """The references that have been compared with a policy, the stricter one first."""
        return [reference for reference in REFERENCES if self.against(reference)]

    def against(self, reference: str, of_models: bool = False) -> dict[str, Mapping[str, Estimate]]:
        """By policy and measure, the changes against a reference; of_models: those of these models alone."""
        changes = {
            name: result.of_models if of_models else result.changes
            for name, result in self.results.items()
        }
        return {name: of[reference] for name, of in changes.items() if reference in of}

    @property
    def shown(self) -> list[Measure]:
        """The measures whose changes are in the table for readers."""
        return [measure for measure in self.measures if measure.change]


def compare_runs(
    family: str,
    runs: Sequence[Run],
    resamples: int,
    blind: Mapping[str, float] | None = None,
    left_out: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Comparison:
    """The comparison of all policies that have `runs`."""
    runs = sorted(runs, key=lambda run: [*CONTROLS, run.policy].index(run.policy))
    return Comparison(
        family,
        list(dict.fromkeys(run.seed for run in runs)),
        len(runs[0].predictions),
        compare(tables(runs), resamples),
        {policy: kinds_of(same) for policy, same in by_policy(runs).items()},
        blind or {},
        left_out=left_out or {},
        notes=notes,
    )


# ------------------------------------------------------------------------------- arrays


def compare(
    values: Mapping[str, Array], resamples: int, measures: Sequence[Measure] = MEASURES
) -> dict[str, Result]:
    """The results of each policy, from its values (S, N, M) by seed, question and measure."""
    if REFERENCE not in values:
        raise UserError(f"compare needs {REFERENCE}: changes are measured against it")
    # All policies share the resampled questions.
    per_question = np.stack([table.mean(axis=0) for table in values.values()])
    resampled = dict(zip(values, _bootstrap(per_question, resamples).swapaxes(0, 1), strict=True))
    changes: dict[str, dict[str, dict[str, Estimate]]] = {policy: {} for policy in values}
    of_models: dict[str, dict[str, dict[str, Estimate]]] = {policy: {} for policy in values}
    for reference in REFERENCES:
        policies = compared_with(reference, list(values))
        single: dict[str, dict[str, Estimate]] = {policy: {} for policy in policies}
        general: dict[str, dict[str, Estimate]] = {policy: {} for policy in policies}
        for policy in policies:
            differences = values[policy] - values[reference]
            resampled_differences = resampled[policy] - resampled[reference]
            for m, measure in enumerate(measures):
                single[policy][measure.name] = replace(
                    _mean(differences[:, :, m], resampled_differences[:, m]),
                    p=sign_flip_p(differences[:, :, m].mean(axis=0)),
                )
                general[policy][measure.name] = _of_method(
                    differences[:, :, m], single[policy][measure.name]
                )
        for found, adjusted in (
            (changes, _adjusted(general, measures)),
            (of_models, _adjusted(single, measures)),
        ):
            for policy in policies:
                found[policy][reference] = adjusted[policy]
    return {
        policy: Result(
            {
                measure.name: _rate(table[:, :, m])
                if measure.kind == "rate"
                else _mean(table[:, :, m], resampled[policy][:, m])
                for m, measure in enumerate(measures)
            },
            changes[policy],
            of_models[policy],
        )
        for policy, table in values.items()
    }


def compared_with(reference: str, policies: Sequence[str]) -> list[str]:
    """The policies whose changes are given against a reference: all others against SFT, the RL methods against SFT+."""
    if reference not in policies:
        return []
    apart = (reference,) if reference == REFERENCE else CONTROLS
    return [policy for policy in policies if policy not in apart]


def _of_method(differences: Array, of_models: Estimate) -> Estimate:
    """The change with intervals and p-value over trainings and questions; that of the models if there are too few seeds."""
    found = crossed(differences)
    if found is None:
        return of_models
    return replace(
        of_models,
        interval=found.interval(LEVEL),
        inner_interval=found.interval(INNER_LEVEL),
        p=found.p,
        of_method=True,
    )


def _adjusted(
    changes: Mapping[str, Mapping[str, Estimate]], measures: Sequence[Measure]
) -> dict[str, dict[str, Estimate]]:
    """The changes against one reference, by policy, with p-values adjusted for those that are read together."""
    together = [[measure.name for measure in measures if measure.change]]
    together += [[measure.name] for measure in measures if not measure.change]
    adjusted = {policy: dict(of_policy) for policy, of_policy in changes.items()}
    for names in together:
        keys = [(policy, name) for policy in changes for name in names]
        p_values = [changes[policy][name].p for policy, name in keys]
        for (policy, name), p in zip(
            keys, holm([p for p in p_values if p is not None]), strict=True
        ):
            adjusted[policy][name] = replace(changes[policy][name], p=p)
    return adjusted


def _bootstrap(per_question: Array, resamples: int) -> Array:
    """Resampled means (resamples, policies, M) of (policies, N, M)."""
    policies, questions, width = per_question.shape
    rows = per_question.swapaxes(0, 1).reshape(questions, policies * width)
    return resample_means(rows, resamples).reshape(-1, policies, width)


def _mean(values: Array, resampled: Array) -> Estimate:
    """The mean of values (S, N), with intervals from resampled means (resamples,)."""
    return Estimate(
        float(values.mean()),
        percentiles(resampled, LEVEL),
        percentiles(resampled, INNER_LEVEL),
        tuple(Estimate(float(seed.mean())) for seed in values),
    )


def _rate(answers: Array) -> Estimate:
    """The mean of zeros and ones (S, N), with Jeffreys intervals."""

    def of(some: Array) -> Estimate:
        inner = rate_interval(some, INNER_LEVEL)
        return Estimate(float(some.mean()), rate_interval(some, LEVEL), inner)

    return replace(of(answers), seeds=tuple(of(seed[None]) for seed in answers))


# ------------------------------------------------------------------------------- runs


def by_policy(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each policy by seed; `UserError` unless all have the same seeds."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.policy, []).append(run)
    for policy, same in groups.items():
        same.sort(key=lambda run: run.seed)
        first = next(iter(groups))
        if [run.seed for run in same] != [run.seed for run in groups[first]]:
            raise UserError(f"{policy} and {first} are not there for the same seeds")
    return groups


def tables(runs: Sequence[Run], measures: Sequence[Measure] = MEASURES) -> dict[str, Array]:
    """By policy, the values (S, N, M) by seed, question and measure."""
    return {
        policy: np.stack(
            [
                np.stack([*measured(run.predictions, measures).values()], axis=-1).astype(float)
                for run in same
            ]
        )
        for policy, same in by_policy(runs).items()
    }


def kinds_of(runs: Sequence[Run]) -> dict[str, Kind]:
    """The kinds of choices over the seeds of one policy."""
    kinds, rewards, right = (
        np.array([[row[column] for row in run.predictions] for run in runs])
        for column in ("kind", "reward", "correct")
    )
    return {
        str(kind): Kind(
            _rate((kinds == kind).astype(float)),
            float(((kinds == kind) & right).mean()),
            float(rewards[kinds == kind].mean()),
        )
        for kind in np.unique(kinds)
    }


def read_runs(directory: Path, policies: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Test predictions of every policy at every seed, `directory`/POLICY/SEED, but of those that `read_left_out` names.

    `UserError` if one is missing, was evaluated on other questions or under other conditions than the first, or by code
    that has changed since.
    """
    runs: list[Run] = []
    first: tuple[Path, dict[str, Any]] | None = None
    left_out = read_left_out(directory, policies, seeds)
    for policy in policies:
        if policy in left_out:
            continue
        for seed in seeds:
            folder = directory / policy / str(seed)
            for name in ("predictions.jsonl", "manifest.json"):
                if not (folder / name).is_file():
                    raise UserError(f"{folder / name}: missing; run dvc repro {directory.name}")
            check_code(folder)
            conditions = _conditions(folder / "manifest.json")
            predicted = read_jsonl(folder / "predictions.jsonl")
            rows = [row for row in predicted if row["split"] == SPLIT]
            if not rows:
                raise UserError(f"{folder / 'predictions.jsonl'}: no predictions of split {SPLIT}")
            if first is None:
                first = folder, conditions
            for key, value in conditions.items():
                if value != first[1].get(key):
                    raise UserError(f"{folder} and {first[0]} differ in their {key}; run dvc repro")
            if runs:
                check_same_questions(folder, rows, first[0], runs[0].predictions)
            runs.append(Run(policy, seed, rows))
    return runs


def read_left_out(directory: Path, policies: Sequence[str], seeds: Sequence[int]) -> dict[str, str]:
    """By policy, why it was not trained with a seed; without all seeds it cannot be compared.

    `UserError` if that was found by code that has changed since.
    """
    left_out = {}
    for policy in policies:
        folders = {seed: directory / policy / str(seed) for seed in seeds}
        reasons = {seed: why_not_trained(folder) for seed, folder in folders.items()}
        found = {seed: reason for seed, reason in reasons.items() if reason is not None}
        for seed in found:
            check_code(folders[seed])
        if found:
            told = [f"seed {seed}: {reason}" for seed, reason in found.items()]
            left_out[policy] = "; ".join(told if len(seeds) > 1 else found.values())
    return left_out


def check_same_questions(
    name: object, rows: Sequence[Row], other: object, expected: Sequence[Row]
) -> None:
    """`UserError` unless both have the same questions in the same order."""
    if len(rows) != len(expected):
        raise UserError(
            f"{name} has {len(rows)} test questions, {other} has {len(expected)}; run dvc repro"
        )
    for row, wanted in zip(rows, expected, strict=True):
        if row["id"] != wanted["id"]:
            raise UserError(
                f"{name} has question {row['id']} where {other} has {wanted['id']}; run dvc repro"
            )


def _conditions(path: Path) -> dict[str, Any]:
    """The parts of a manifest that must be equal for two sets of predictions to be compared."""
    manifest = read_json(path)
    try:
        data = {
            name: digest
            for name, digest in manifest["inputs"].items()
            if not name.startswith("models/") or name.startswith("models/base")
        }
        return {"data": data, "params": manifest["params"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest of an evaluation: {error}") from error

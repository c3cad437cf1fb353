"""Compare policies that were evaluated on the same questions, each trained from several seeds.

Figures of a policy are means over its seeds; `spread` is the standard deviation over seeds (n - 1;
null for one seed). Each has a 95 % and an 80 % interval. Those of rates (accuracy, shares of kinds of
chosen candidates) are Jeffreys', of one seed and of all: the seeds' answers to one question count
for as many as they are worth together (`intervals.effective_count`). Those of means and of the
paired changes against SFT come from a bootstrap over questions: a question's value is first
averaged over seeds (for a change: method minus SFT of the same seed, on the same question), then
questions are resampled. So an interval says what other test questions would have given to these
trained models; what other seeds would have given shows in the spread and in the per-seed rows. An
untrained policy is evaluated once and has neither.
The p-values of the changes in reward and in expected reward are those of a paired permutation test on the same
per-question differences, each adjusted for the number of policies (Holm).

The reward is that of the best-scored candidate (the greedy answer), the expected reward that of a draw from the
policy, which is what reinforcement learning raises: a policy may grow surer and choose the same.

The models compared are the ones named in params. A missing one, or one evaluated on other
questions, pools, prompts or by another evaluator, or by code that has changed since, is a
`UserError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl
from posttrain.core.manifest import check_code
from posttrain.measures.choices import HEADLINES, Row, columns, headlines_of
from posttrain.measures.intervals import (
    Array,
    Interval,
    percentiles,
    rate_interval,
    resample_means,
)
from posttrain.measures.significance import holm, sign_flip_p

LEVEL = 0.95
INNER_LEVEL = 0.80
BASELINE = "sft"
UNTRAINED = ("base",)  # evaluated once, under the first seed
SPLIT = "test"
# Places in `metrics.columns`.
CORRECT = 0
REWARD = 1
EXPECTED_REWARD = 3


@dataclass(frozen=True, slots=True)
class Run:
    """Predictions of one trained model on the test split, and on validation, by which one may choose."""

    policy: str
    seed: int
    predictions: Sequence[Row]
    validation: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % and 80 % intervals (None where there are none) and the estimates of the single seeds."""

    value: float
    interval: Interval | None = None
    inner_interval: Interval | None = None
    seeds: tuple[Estimate, ...] = ()

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        values = [seed.value for seed in self.seeds]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What `compare` says of one policy; its changes are None for SFT itself, as are their p-values.

    `reward_median` and `reward_deviation` (n - 1) are over all questions and seeds.
    `chosen` gives for each kind of candidate the share of the questions where it was chosen,
    `kind_reward` the mean reward there (None where it never was).
    """

    policy: str
    seeds: tuple[int, ...]
    accuracy: Estimate
    reward: Estimate
    reward_median: float
    reward_deviation: float
    reward_ratio: Estimate
    expected_reward: Estimate
    probability_correct: Estimate
    reward_change: Estimate | None
    accuracy_change: Estimate | None
    expected_reward_change: Estimate | None
    reward_p: float | None
    expected_reward_p: float | None
    chosen: Mapping[str, Estimate]
    kind_reward: Mapping[str, float | None]
    validation: Mapping[
        str, float
    ]  # accuracy and reward there, means over seeds; empty if not predicted

    @property
    def estimates(self) -> dict[str, Estimate]:
        """All of them by name."""
        named = {name: getattr(self, name) for name in HEADLINES}
        for name in ("reward_change", "accuracy_change", "expected_reward_change"):
            if (change := getattr(self, name)) is not None:
                named[name] = change
        return named | {f"chosen_{kind}": share for kind, share in self.chosen.items()}


def load_runs(directory: Path, policies: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Test predictions of every policy at every seed, after checking that they can be compared.

    The one evaluation of an untrained policy counts for each seed.
    """
    runs: list[Run] = []
    first: tuple[Path, dict[str, Any]] | None = None
    for policy in policies:
        for seed in seeds:
            folder = directory / f"{policy}-{seeds[0] if policy in UNTRAINED else seed}"
            for name in ("predictions.jsonl", "manifest.json"):
                if not (folder / name).is_file():
                    raise UserError(f"{folder / name}: missing; run stage evaluate for it")
            check_code(folder)
            made_with = _conditions(folder / "manifest.json")
            predicted = read_jsonl(folder / "predictions.jsonl")
            rows = [row for row in predicted if row["split"] == SPLIT]
            if not rows:
                raise UserError(f"{folder / 'predictions.jsonl'}: no predictions of split {SPLIT}")
            if first is None:
                first = folder, made_with
            for key, value in made_with.items():
                if value != first[1][key]:
                    raise UserError(f"{folder} and {first[0]} differ in their {key}; run dvc repro")
            if runs:
                _check_same_questions(rows, runs[0].predictions, folder, first[0])
            runs.append(
                Run(policy, seed, rows, [row for row in predicted if row["split"] == "val"])
            )
    return runs


def compare(runs: Sequence[Run], resamples: int) -> list[PolicyResult]:
    """One result per policy, in the order of `runs`; SFT must be there at every seed."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        groups.setdefault(run.policy, {})[run.seed] = run
    if BASELINE not in groups:
        raise UserError(f"compare needs {BASELINE}: changes are measured against it")
    for policy, of_seed in groups.items():
        if of_seed.keys() != groups[BASELINE].keys():
            raise UserError(f"{policy} and {BASELINE} are not there for the same seeds")
    kinds = sorted({row["kind"] for run in runs for row in run.predictions})
    base = np.stack([columns(run.predictions) for run in groups[BASELINE].values()])
    tables = []
    for of_seed in groups.values():
        ordered = [of_seed[seed] for seed in groups[BASELINE]]
        values = np.stack([columns(run.predictions) for run in ordered])
        picked = np.array([[row["kind"] for row in run.predictions] for run in ordered])
        shares = np.stack([picked == kind for kind in kinds], axis=-1)
        tables.append(np.concatenate([values, values - base, shares], axis=-1))
    # All policies see the same resampled questions.
    stacked = np.stack(tables)  # (policies, S, N, columns)
    per_question = stacked.mean(axis=1).swapaxes(0, 1)
    drawn = resample_means(per_question.reshape(len(per_question), -1), resamples)
    drawn = drawn.reshape(-1, *per_question.shape[1:])  # (resamples, policies, columns)
    results = [
        _result(
            policy,
            tuple(groups[BASELINE]),
            stacked[i],
            drawn[:, i],
            kinds,
            _validation([*groups[policy].values()]),
        )
        for i, policy in enumerate(groups)
    ]
    tested = [i for i, result in enumerate(results) if result.policy != BASELINE]
    adjusted = [
        holm([sign_flip_p(per_question[:, i, base.shape[-1] + column]) for i in tested])
        for column in (REWARD, EXPECTED_REWARD)
    ]
    for i, of_reward, of_expected in zip(tested, *adjusted, strict=True):
        results[i] = replace(results[i], reward_p=of_reward, expected_reward_p=of_expected)
    return results


def _conditions(path: Path) -> dict[str, Any]:
    """What must be equal for two sets of predictions to be compared."""
    manifest = read_json(path)
    try:
        pools = {
            name: digest for name, digest in manifest["inputs"].items() if name.endswith(".jsonl")
        }
        return {
            "pools": pools,
            "params": manifest["params"],
            "base model": manifest["inputs"]["models/base"],
            "prompt hash": manifest["prompt"],
            "evaluator": manifest["evaluator"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest of stage evaluate: {error}") from error


def _check_same_questions(
    rows: Sequence[Row], expected: Sequence[Row], folder: Path, other: Path
) -> None:
    if len(rows) != len(expected):
        raise UserError(f"{folder} has {len(rows)} test questions, {other} has {len(expected)}")
    for row, wanted in zip(rows, expected, strict=True):
        if row["id"] != wanted["id"]:
            raise UserError(f"{folder} has question {row['id']} where {other} has {wanted['id']}")


def _result(
    policy: str,
    seeds: tuple[int, ...],
    table: Array,
    drawn: Array,
    kinds: Sequence[str],
    validation: Mapping[str, float],
) -> PolicyResult:
    """From the table (S, N, columns) of a policy and its resampled means (resamples, columns).

    Columns: those of `metrics.columns`, their differences to SFT, and whether each kind was chosen.
    """
    width = (table.shape[-1] - len(kinds)) // 2
    evaluated = table[:1] if policy in UNTRAINED else table
    of_seeds, whole = table.mean(axis=1), table.mean(axis=(0, 1))
    named = [headlines_of(means[..., :width]) for means in (whole, drawn, evaluated.mean(axis=1))]
    headlines = {name: _mean(*(means[name] for means in named)) for name in HEADLINES}
    headlines["accuracy"] = _rate(evaluated[:, :, CORRECT])

    def change(column: int) -> Estimate:
        place = width + column
        return _mean(whole[place], drawn[:, place], of_seeds[:, place])

    is_baseline = policy == BASELINE
    rewards = table[:, :, REWARD]
    chosen = {kind: table[:, :, 2 * width + i] == 1 for i, kind in enumerate(kinds)}
    return PolicyResult(
        policy=policy,
        seeds=seeds,
        **headlines,
        reward_median=float(np.median(rewards)),
        reward_deviation=float(np.std(rewards, ddof=1)) if rewards.size > 1 else 0.0,
        accuracy_change=None if is_baseline else change(CORRECT),
        reward_change=None if is_baseline else change(REWARD),
        expected_reward_change=None if is_baseline else change(EXPECTED_REWARD),
        reward_p=None,
        expected_reward_p=None,
        chosen={kind: _rate(evaluated[:, :, 2 * width + i]) for i, kind in enumerate(kinds)},
        kind_reward={
            kind: float(rewards[where].mean()) if where.any() else None
            for kind, where in chosen.items()
        },
        validation=validation,
    )


def _validation(runs: Sequence[Run]) -> dict[str, float]:
    """Accuracy and reward of a policy on validation, means over its seeds."""
    if not all(run.validation for run in runs):
        return {}
    means = np.mean([columns(run.validation).mean(axis=0) for run in runs], axis=0)
    found = headlines_of(means)
    return {name: float(found[name]) for name in ("accuracy", "reward")}


def _mean(value: Array, drawn: Array, seeds: Array) -> Estimate:
    """From the mean over all seeds, its resamples, and the means of the single seeds (S,)."""
    return Estimate(
        float(value),
        percentiles(drawn, LEVEL),
        percentiles(drawn, INNER_LEVEL),
        tuple(Estimate(float(seed)) for seed in seeds),
    )


def _rate(answers: Array) -> Estimate:
    """Of the zeros and ones (S, N) of a policy's seeds."""

    def of(some: Array) -> Estimate:
        inner = rate_interval(some, INNER_LEVEL)
        return Estimate(float(some.mean()), rate_interval(some, LEVEL), inner)

    return replace(of(answers), seeds=tuple(of(seed[None]) for seed in answers))

"""Compare policies that were evaluated on the same questions, each trained from several seeds.

Figures of a policy are means over its seeds; `spread` is the standard deviation over seeds (n - 1;
null for one seed). Its 95 % interval, and that of the paired change against SFT, come from a
bootstrap over questions: a question's value is first averaged over seeds (for a change: method
minus SFT of the same seed, on the same question), then questions are resampled. So the interval
says what other test questions would have given to these trained models; what other seeds would have
given shows in the spread and in the per-seed rows. The p-value of a change in reward is that of a paired
permutation test on the same per-question differences, adjusted for the number of policies (Holm).

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

from posttrain.errors import UserError
from posttrain.evaluation.intervals import Array, Interval, percentiles, resample_means
from posttrain.evaluation.metrics import DIGITS, HEADLINES, Row, columns, headlines_of
from posttrain.evaluation.significance import holm, sign_flip_p
from posttrain.files import read_json, read_jsonl
from posttrain.manifest import check_code

LEVEL = 0.95
BASELINE = "sft"
UNTRAINED = ("base",)  # evaluated once, under the first seed
SPLIT = "test"
# Places in `metrics.columns`.
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
    """A value with its interval (None where there is none) and the values of the single seeds."""

    value: float
    interval: Interval | None
    seeds: tuple[float, ...] = ()

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None for fewer than two."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What `compare` says of one policy; changes and `p_value` (of the change in reward) are None for SFT itself.

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
    p_value: float | None
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
    change = base.shape[-1] + REWARD
    adjusted = holm([sign_flip_p(per_question[:, i, change]) for i in tested])
    for i, p_value in zip(tested, adjusted, strict=True):
        results[i] = replace(results[i], p_value=p_value)
    return results


def flat_metrics(
    family: str, results: Sequence[PolicyResult], trivial: Mapping[str, float]
) -> dict[str, dict[str, dict[str, float]]]:
    """By family and policy a few leaves, for `dvc exp show` and `dvc metrics diff`; and the best trivial rule.

    The family makes the names of the leaves unique, so that DVC's columns need no file names.
    """
    metrics: dict[str, dict[str, float]] = {}
    if trivial:
        metrics["best_trivial_rule"] = {"accuracy": round(max(trivial.values()), DIGITS)}
    for result in results:
        leaves = {
            "accuracy": result.accuracy.value,
            "reward": result.reward.value,
            "expected_reward": result.expected_reward.value,
        }
        change = result.reward_change
        if change is not None and change.interval is not None and result.p_value is not None:
            leaves["change"] = change.value
            leaves["change_low"], leaves["change_high"] = change.interval
            leaves["change_p"] = result.p_value
        leaves |= {f"val_{name}": value for name, value in result.validation.items()}
        metrics[result.policy] = {name: round(value, DIGITS) for name, value in leaves.items()}
    return {family: metrics}


def tidy_rows(
    results: Sequence[PolicyResult], trivial: Mapping[str, float], questions: int
) -> list[dict[str, str]]:
    """Long form: one row per policy (or trivial rule), seed (a number, or `mean`) and metric.

    Columns policy, seed, metric, value, low, high (95 %), spread; empty where there is none. The first row is the
    number of questions.
    """
    rows = [_tidy("", "", "questions", Estimate(questions, None))]
    rows += [
        _tidy(rule, "", "accuracy", Estimate(accuracy, None)) for rule, accuracy in trivial.items()
    ]
    for result in results:
        for metric in ("reward_median", "reward_deviation"):
            rows.append(
                _tidy(result.policy, "mean", metric, Estimate(getattr(result, metric), None))
            )
        for metric, estimate in result.estimates.items():
            rows.append(_tidy(result.policy, "mean", metric, estimate))
            for seed, value in zip(result.seeds, estimate.seeds, strict=True):
                rows.append(_tidy(result.policy, str(seed), metric, Estimate(value, None)))
        if result.p_value is not None:
            p_value = Estimate(result.p_value, None)
            rows.append(_tidy(result.policy, "mean", "reward_change_p", p_value))
        for kind, reward in result.kind_reward.items():
            if reward is not None:
                estimate = Estimate(reward, None)
                rows.append(_tidy(result.policy, "mean", f"reward_when_{kind}_chosen", estimate))
    return rows


def markdown(
    results: Sequence[PolicyResult],
    trivial: Mapping[str, float],
    questions: int,
    kinds_of: str = "where a candidate of each kind is chosen",
) -> str:
    """The comparison as two tables: worth, and kinds of chosen candidates (or of answers)."""
    seeds = ", ".join(map(str, results[0].seeds))
    kinds = sorted({kind for result in results for kind in result.chosen})
    lines = [
        f"{questions} test questions; means over seeds {seeds}, ± the standard deviation over "
        "seeds. Brackets: 95 % bootstrap intervals over questions; changes are paired with SFT by seed and question, "
        "and the p-value (paired permutation test) is adjusted for the number of policies (Holm). The reward is that of "
        "the greedy answer, the expected reward that of a draw from the policy.",
        "",
        "| policy | accuracy | reward | reward ratio | change in reward against SFT | p "
        "| expected reward | its change |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rule, accuracy in sorted(trivial.items(), key=lambda item: item[1]):
        lines.append(f"| rule: {rule.replace('_', ' ')} | {accuracy:.3f} | | | | | | |")
    for result in results:
        cells = [
            result.policy,
            _with_interval(result.accuracy),
            _with_spread(result.reward),
            f"{result.reward_ratio.value:.3f}",
            _with_interval(result.reward_change, sign=True) if result.reward_change else "",
            "" if result.p_value is None else f"{result.p_value:.3f}",
            _with_spread(result.expected_reward),
            _with_interval(result.expected_reward_change, sign=True)
            if result.expected_reward_change
            else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Share of the questions {kinds_of}, and mean reward there:",
        "",
        f"| policy | {' | '.join(kinds)} |",
        "|---" * (len(kinds) + 1) + "|",
    ]
    for result in results:
        cells = []
        for kind in kinds:
            reward = result.kind_reward[kind]
            worth = "" if reward is None else f" (reward {reward:.3f})"
            cells.append(f"{result.chosen[kind].value:.3f}{worth}")
        lines.append(f"| {result.policy} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _conditions(path: Path) -> dict[str, Any]:
    """What must be equal for two sets of predictions to be compared."""
    manifest = read_json(path)
    try:
        pools = {
            name: digest for name, digest in manifest["inputs"].items() if name.endswith(".jsonl")
        }
        return {
            "pools": pools,
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
    of_seeds, whole = table.mean(axis=1), table.mean(axis=(0, 1))
    named = [headlines_of(means[..., :width]) for means in (whole, drawn, of_seeds)]
    headlines = {name: _estimate(*(means[name] for means in named)) for name in HEADLINES}

    def of_column(column: int) -> Estimate:
        return _estimate(whole[column], drawn[:, column], of_seeds[:, column])

    is_baseline = policy == BASELINE
    rewards = table[:, :, REWARD]
    chosen = {kind: table[:, :, 2 * width + i] == 1 for i, kind in enumerate(kinds)}
    return PolicyResult(
        policy=policy,
        seeds=seeds,
        **headlines,
        reward_median=float(np.median(rewards)),
        reward_deviation=float(np.std(rewards, ddof=1)) if rewards.size > 1 else 0.0,
        accuracy_change=None if is_baseline else of_column(width),
        reward_change=None if is_baseline else of_column(width + REWARD),
        expected_reward_change=None if is_baseline else of_column(width + EXPECTED_REWARD),
        p_value=None,
        chosen={kind: of_column(2 * width + i) for i, kind in enumerate(kinds)},
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


def _estimate(value: Array, drawn: Array, seeds: Array) -> Estimate:
    return Estimate(float(value), percentiles(drawn, LEVEL), tuple(seeds.tolist()))


def _tidy(policy: str, seed: str, metric: str, estimate: Estimate) -> dict[str, str]:
    low, high = estimate.interval or (None, None)
    numbers = {"value": estimate.value, "low": low, "high": high, "spread": estimate.spread}
    shown = {name: "" if x is None else f"{x:.{DIGITS}f}" for name, x in numbers.items()}
    return {"policy": policy, "seed": seed, "metric": metric, **shown}


def _with_interval(estimate: Estimate, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    assert estimate.interval is not None
    low, high = estimate.interval
    return f"{_with_spread(estimate, form)} [{low:{form}}, {high:{form}}]"


def _with_spread(estimate: Estimate, form: str = ".3f") -> str:
    spread = "" if estimate.spread is None else f" ± {estimate.spread:.3f}"
    return f"{estimate.value:{form}}{spread}"

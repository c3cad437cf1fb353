"""What a comparison writes: a few metrics for DVC, one long table for programs, and two for readers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from posttrain.core.files import atomic_write, write_json
from posttrain.measures.choices import DIGITS
from posttrain.report.compare import Estimate, PolicyResult, Run, compare
from posttrain.report.plots import plot_comparison

CHOSEN = "where a candidate of each kind is chosen"


def write_comparison(
    name: str,
    family: str,
    runs: Sequence[Run],
    resamples: int,
    trivial: Mapping[str, float],
    kinds_of: str = CHOSEN,
) -> None:
    """Compare the runs of a family of policies: metrics/NAME.json, and plots/NAME with csv, md and png."""
    results, questions = compare(runs, resamples), len(runs[0].predictions)
    write_json(Path("metrics") / f"{name}.json", flat_metrics(family, results, trivial))
    rows = tidy_rows(results, trivial, questions)
    with atomic_write(Path("plots") / f"{name}.csv") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write(Path("plots") / f"{name}.md") as file:
        file.write(markdown(results, trivial, questions, kinds_of))
    plot_comparison(results, trivial, questions, Path("plots") / f"{name}.png")


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
        if change is not None and change.interval is not None and result.reward_p is not None:
            leaves["change"] = change.value
            leaves["change_low"], leaves["change_high"] = change.interval
            leaves["change_p"] = result.reward_p
        leaves |= {f"val_{name}": value for name, value in result.validation.items()}
        metrics[result.policy] = {name: round(value, DIGITS) for name, value in leaves.items()}
    return {family: metrics}


def tidy_rows(
    results: Sequence[PolicyResult], trivial: Mapping[str, float], questions: int
) -> list[dict[str, str]]:
    """Long form: one row per policy (or trivial rule), seed (a number, or `mean`) and metric.

    Columns policy, seed, metric, value, low, high (95 %), low_80, high_80, spread; empty where there is none. The first
    row is the number of questions.
    """
    rows = [_tidy("", "", "questions", Estimate(questions))]
    rows += [_tidy(rule, "", "accuracy", Estimate(accuracy)) for rule, accuracy in trivial.items()]
    for result in results:
        for metric in ("reward_median", "reward_deviation"):
            rows.append(_tidy(result.policy, "mean", metric, Estimate(getattr(result, metric))))
        for metric, estimate in result.estimates.items():
            rows.append(_tidy(result.policy, "mean", metric, estimate))
            for seed, of_seed in zip(result.seeds, estimate.seeds, strict=False):
                rows.append(_tidy(result.policy, str(seed), metric, of_seed))
        p_values = {
            "reward_change_p": result.reward_p,
            "expected_reward_change_p": result.expected_reward_p,
        }
        for metric, p_value in p_values.items():
            if p_value is not None:
                rows.append(_tidy(result.policy, "mean", metric, Estimate(p_value)))
        for kind, reward in result.kind_reward.items():
            if reward is not None:
                metric = f"reward_when_{kind}_chosen"
                rows.append(_tidy(result.policy, "mean", metric, Estimate(reward)))
    return rows


def markdown(
    results: Sequence[PolicyResult],
    trivial: Mapping[str, float],
    questions: int,
    kinds_of: str = CHOSEN,
) -> str:
    """The comparison as two tables: worth, and kinds of chosen candidates (or of answers)."""
    seeds = results[0].seeds
    trained, clustered = f"seed {seeds[0]}", ""
    if len(seeds) > 1:
        trained = (
            f"means over seeds {', '.join(map(str, seeds))}, ± the standard deviation over seeds"
        )
        clustered = " (answers of several seeds to a question are a cluster)"
    kinds = sorted({kind for result in results for kind in result.chosen})
    lines = [
        f"{questions} test questions; {trained}. Brackets: 95 % intervals over questions, Jeffreys' for "
        f"accuracy{clustered} and bootstrap for means and changes; changes are "
        "paired with SFT by seed and question, and each p-value (paired permutation test) is adjusted for the number of "
        "policies (Holm). Accuracy: the program of the answer gives the gold answer. The reward is that of the greedy "
        "answer (ratio: to the best there is), the expected reward that of a draw from the policy.",
        "",
        "| policy | accuracy | reward | reward ratio | change in reward against SFT | p "
        "| expected reward | its change | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rule, accuracy in sorted(trivial.items(), key=lambda item: item[1]):
        lines.append(f"| rule: {rule.replace('_', ' ')} | {accuracy:.3f} | | | | | | | |")
    for result in results:
        cells = [
            result.policy,
            _with_interval(result.accuracy),
            _with_spread(result.reward),
            f"{result.reward_ratio.value:.3f}",
            _with_interval(result.reward_change, sign=True) if result.reward_change else "",
            _with_p(result.reward_p),
            _with_spread(result.expected_reward),
            _with_interval(result.expected_reward_change, sign=True)
            if result.expected_reward_change
            else "",
            _with_p(result.expected_reward_p),
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


def _tidy(policy: str, seed: str, metric: str, estimate: Estimate) -> dict[str, str]:
    low, high = estimate.interval or (None, None)
    low_80, high_80 = estimate.inner_interval or (None, None)
    numbers = {
        "value": estimate.value,
        "low": low,
        "high": high,
        "low_80": low_80,
        "high_80": high_80,
        "spread": estimate.spread,
    }
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


def _with_p(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"

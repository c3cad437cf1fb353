"""The policies on each part of a data set, and over its parts: of a mixture in stage compare, of several runs in `across`.

    share right    with Jeffreys intervals at 80 and 95 %, for these trained models (the seeds of a question form a cluster)
    of the method  with three seeds and more, a 95 % interval over other trainings too (`measures.crossed`), which is made to
                   hold Jeffreys': answers that are all wrong have no spread
    score          mean reward with bootstrap intervals, and the deviation and median of the rewards of single answers
    episodes       of an environment, their turns, and the shares that `measures.episodes` defines
    all            every question counts the same
    by weight      sum of weight * mean over the parts, each part a stratum: intervals of the share from posteriors like
                   Jeffreys' (`weighted_rate_interval`), of the score from a bootstrap within parts
    questions, environments    the same over the parts of one turn alone, and over the others, where there are both

One policy dominates another on points if it has at least its share right on every part and more on one. It is shown to
dominate it if its 95 % interval lies above the other's on one part, and below it on none; intervals are of the method
where there are enough seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posttrain.measures.crossed import LEAST_SEEDS, crossed
from posttrain.measures.episodes import episode_means
from posttrain.measures.intervals import (
    Array,
    Interval,
    effective_count,
    percentiles,
    rate_interval,
    resample_means,
    weighted_rate_interval,
)
from posttrain.measures.named import DIGITS, MEASURES
from posttrain.report.compare import INNER_LEVEL, LEVEL, Estimate, Run, tables
from posttrain.report.findings import EXPERT, joined, label
from posttrain.report.pareto import dominated, shown_dominated
from posttrain.report.tables import BLIND, VALUES, table

SUCCESS, SCORE = (
    next(m for m, one in enumerate(MEASURES) if one.name == name) for name in ("accuracy", "reward")
)
NOT_DOMINATED = "none"  # in the metrics
OF_EPISODES = (
    "Invalid and cut are shares of turns, limit and error of episodes; see docs/comparison.md."
)
QUESTIONS, ENVIRONMENTS = "questions", "environments"  # kinds of parts
SHOWN = ("turns", "invalid", "cut", "limit", "error")  # of `measures.episodes`


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy does on some questions.

    success: the share right, of these models. count: independent answers that it rests on. of_method: its 95 % interval
    over trainings too. score: mean reward. deviation, median: of single rewards, None over several strata.
    """

    success: Estimate
    count: float
    of_method: Interval | None = None
    score: Estimate | None = None
    deviation: float | None = None
    median: float | None = None

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the share, of the method where there is one."""
        found = self.of_method or self.success.interval
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """A part, its weight, and by name the figures of policies and the accuracies of blind baselines.

    episodes: of an environment, the means of its measures by policy.
    """

    name: str
    questions: int
    weight: float
    figures: Mapping[str, Figures]
    blind: Mapping[str, float] = field(default_factory=dict)
    episodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, and by policy the figures over all questions and by weight; and those of each kind of parts, by name."""

    parts: Sequence[Part]
    all: Mapping[str, Figures]
    by_weight: Mapping[str, Figures]
    kinds: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)

    @property
    def of_methods(self) -> bool:
        """Whether intervals are of methods."""
        return any(figures.of_method for figures in self.all.values())


# ------------------------------------------------------------------------------- figures


def measure_parts(
    runs: Sequence[Run],
    part_of: Mapping[str, str],
    weights: Mapping[str, float],
    blind: Mapping[str, Mapping[str, float]],
    resamples: int,
    played: Collection[str] = (),
) -> Parts:
    """The figures of all policies that have `runs`.

    part_of: part by id of the question. weights: by part, in the order in which they are shown. blind: by part. played: the
    parts that are environments.
    """
    asked = np.array([part_of[row["id"]] for row in runs[0].predictions])
    values = tables(runs)
    strata = {part: asked == part for part in weights}
    figures = {
        policy: {
            part: figures_of([(1.0, of[:, which])], resamples) for part, which in strata.items()
        }
        for policy, of in values.items()
    }

    def over_parts(names: Collection[str]) -> dict[str, Figures]:
        return {
            policy: figures_of(
                [(w, of[:, strata[part]]) for part, w in weights.items() if part in names],
                resamples,
            )
            for policy, of in values.items()
        }

    kinds = {
        QUESTIONS: [part for part in weights if part not in played],
        ENVIRONMENTS: [part for part in weights if part in played],
    }
    return Parts(
        [
            Part(
                part,
                int(strata[part].sum()),
                weight,
                {policy: of[part] for policy, of in figures.items()},
                blind.get(part, {}),
                _episodes(runs, part_of, part) if part in played else {},
            )
            for part, weight in weights.items()
        ],
        {policy: figures_of([(1.0, of)], resamples) for policy, of in values.items()},
        over_parts(weights),
        {kind: over_parts(names) for kind, names in kinds.items()} if all(kinds.values()) else {},
    )


def _episodes(
    runs: Sequence[Run], part_of: Mapping[str, str], part: str
) -> dict[str, dict[str, float]]:
    """By policy, the means over seeds of the measures of its episodes in a part."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        own = [row for row in run.predictions if part_of[row["id"]] == part]
        means = episode_means([{**row, "score": row["reward"]} for row in own])
        found.setdefault(run.policy, []).append(means)
    return {
        policy: {name: float(np.mean([one.get(name, 0.0) for one in each])) for name in SHOWN}
        for policy, each in found.items()
    }


def figures_of(strata: Sequence[tuple[float, Array]], resamples: int) -> Figures:
    """The figures of one policy over strata (weight, values), where values are (S, N, M) by seed, question and measure."""
    total = sum(weight for weight, _ in strata)
    weighted = [(weight / total, values) for weight, values in strata]
    right = [(weight, values[:, :, SUCCESS]) for weight, values in weighted]
    scores = [(weight, values[:, :, SCORE]) for weight, values in weighted]
    rates = [(float(of.mean()), effective_count(of), weight) for weight, of in right]
    success = _estimate(
        right,
        *(
            rate_interval(right[0][1], level)
            if len(strata) == 1
            else weighted_rate_interval(rates, level)
            for level in (LEVEL, INNER_LEVEL)
        ),
    )
    resampled = np.sum(
        [
            w * resample_means(of.mean(axis=0), resamples, seed)
            for seed, (w, of) in enumerate(scores)
        ],
        axis=0,
    )
    one = scores[0][1] if len(strata) == 1 else None
    return Figures(
        success,
        sum(count for _, count, _ in rates),
        _of_method(right, success),
        _estimate(scores, *(percentiles(resampled, level) for level in (LEVEL, INNER_LEVEL))),
        None if one is None or one.size < 2 else float(one.std(ddof=1)),
        None if one is None else float(np.median(one)),
    )


def _estimate(
    strata: Sequence[tuple[float, Array]], interval: Interval, inner: Interval
) -> Estimate:
    of_seeds = np.sum([weight * values.mean(axis=1) for weight, values in strata], axis=0)
    return Estimate(
        float(of_seeds.mean()), interval, inner, tuple(Estimate(float(seed)) for seed in of_seeds)
    )


def _of_method(strata: Sequence[tuple[float, Array]], success: Estimate) -> Interval | None:
    """The interval over trainings and questions, in [0, 1], that holds that of the models; None for too few seeds.

    The questions are weighted so that their mean is that over the strata, and stand for the distance from the mean of
    their stratum, which is not drawn.
    """
    questions = sum(values.shape[1] for _, values in strata)
    distances = [
        weight * questions / values.shape[1] * (values - values.mean()) for weight, values in strata
    ]
    found = crossed(np.concatenate(distances, axis=1) + success.value)
    if found is None or success.interval is None:
        return None
    (low, high), (lowest, highest) = found.interval(LEVEL), success.interval
    return max(0.0, min(low, lowest)), min(1.0, max(high, highest))


def over(parts: Sequence[Part], weights: Sequence[float]) -> dict[str, Figures]:
    """By policy, the weighted mean over the parts from their figures alone, with the intervals of the share."""
    total, found = sum(weights), {}
    for policy in parts[0].figures:
        of = [part.figures[policy] for part in parts]
        rates = [(one.success.value, one.count, w) for one, w in zip(of, weights, strict=True)]
        value = sum(rate * weight for rate, _, weight in rates) / total
        outer, inner = (weighted_rate_interval(rates, level) for level in (LEVEL, INNER_LEVEL))
        found[policy] = Figures(Estimate(value, outer, inner), sum(count for _, count, _ in rates))
    return found


# ------------------------------------------------------------------------------- domination


def on_points(found: Parts) -> dict[str, str]:
    """By policy that is dominated on points, one that dominates it."""
    return dominated(
        {
            policy: [part.figures[policy].success.value for part in found.parts]
            for policy in found.all
        }
    )


def on_intervals(found: Parts) -> dict[str, str]:
    """By policy that is shown to be dominated, one that dominates it."""
    return shown_dominated(
        {policy: [part.figures[policy].interval for part in found.parts] for policy in found.all}
    )


def sentences(found: Parts) -> list[str]:
    """The front and the dominated policies, on points and on intervals."""
    names = joined([part.name for part in found.parts])
    whose = (
        "of the methods, over other trainings too"
        if found.of_methods
        else f"of these trained models alone: of methods, {LEAST_SEEDS} seeds of each would tell"
    )
    return [
        f"Over {names}, as measured, {_front(found, on_points(found))}.",
        f"By 95 % intervals ({whose}) {_front(found, on_intervals(found))}.",
    ]


def _front(found: Parts, beaten: Mapping[str, str]) -> str:
    front = [label(policy) for policy in found.all if policy not in beaten]
    if not beaten:
        return "no policy is dominated by another"
    by = [f"{label(policy)} (by {label(best)})" for policy, best in beaten.items()]
    verb = "is" if len(by) == 1 else "are"
    on = f"the Pareto front is {joined(front)}" if front else "no policy is on the Pareto front"
    return f"{on}; {joined(by)} {verb} dominated"


# ------------------------------------------------------------------------------- tables


def over_table(found: Parts) -> str:
    """Markdown: by policy, the share right on each part and over them, and the mean scores over them."""
    heads = ["right answers, % [95 %]", *(part.name for part in found.parts), *found.kinds]
    heads += ["all", "by weight"]
    scored = all(one.score for one in found.by_weight.values())
    heads += ["mean score, all", "mean score, by weight"] if scored else []
    rows = []
    for policy in found.all:
        ways = [*(part.figures for part in found.parts), *found.kinds.values()]
        ways += [found.all, found.by_weight]
        row = [label(policy), *(_share(way[policy].success) for way in ways)]
        if scored:
            row += [_mean(way[policy].score) for way in (found.all, found.by_weight)]
        rows.append(row)
    return table(heads, rows)


def part_table(part: Part) -> str:
    """Markdown: of the blind baselines and each policy, the share right with its intervals, and their scores."""
    of_methods = any(figures.of_method for figures in part.figures.values())
    heads = ["", "right, %", "80 %", "95 %", *(["95 %, of the method"] if of_methods else [])]
    heads += ["mean score [95 %]", "deviation", "median"]
    heads += ["turns", *(f"{name}, %" for name in SHOWN[1:])] if part.episodes else []
    rows = []
    for name, rate in part.blind.items():
        told = name.replace("_", " ")
        told = f"{told} (scripted)" if EXPERT in part.blind else f"{BLIND}: {told}"
        rows.append([told, f"{100 * rate:.1f}", *("" for _ in heads[2:])])
    for policy, figures in part.figures.items():
        success = figures.success
        shown = [success.inner_interval, success.interval]
        shown += [figures.of_method] if of_methods else []
        rows.append(
            [
                label(policy),
                f"{100 * success.value:.1f}",
                *map(_ends, shown),
                _mean(figures.score),
                *(
                    f"{value:.2f}" if value is not None else ""
                    for value in (figures.deviation, figures.median)
                ),
            ]
        )
        if part.episodes:
            turns, *shares = (part.episodes[policy][name] for name in SHOWN)
            rows[-1] += [f"{turns:.1f}", *(f"{100 * share:.1f}" for share in shares)]
    return table(heads, rows)


def sections(found: Parts) -> dict[str, str]:
    """The sections of a comparison on its parts, by heading."""
    weights = ", ".join(f"{part.name} {part.weight:g}" for part in found.parts)
    note = (
        f"All: every question counts the same; by weight: the parts do as {weights}. Brackets are for these trained models. "
        "A policy is dominated as measured by one with at least its share on every part and more on one; by intervals, by "
        "one whose interval lies above its own on one part, and below it on none."
    )
    if found.kinds:
        note += " Questions and environments: by weight, over the parts of one turn and over those of many."
    told = {f"{VALUES} over the parts": f"{over_table(found)}\n\n{note}"}
    for part in found.parts:
        told[f"Part {part.name}, {part.questions} test questions"] = (
            f"{part_table(part)}\n\nDeviation and median are of the rewards of single answers."
            + (f" {OF_EPISODES}" if part.episodes else "")
        )
    return told


def figures_by_policy(found: Parts) -> dict[str, dict[str, Any]]:
    """What metrics say of each policy, beside the accuracy over all questions."""
    points, intervals = on_points(found), on_intervals(found)
    return {
        policy: {
            "parts": {
                part.name: {
                    name: round(one.value, DIGITS) for name, one in _named(part.figures[policy])
                }
                for part in found.parts
            },
            **{
                name: {key: round(one.value, DIGITS) for key, one in _named(figures[policy])}
                for name, figures in {**found.kinds, "by_weight": found.by_weight}.items()
            },
            "dominated_by": {
                "points": points.get(policy, NOT_DOMINATED),
                "intervals": intervals.get(policy, NOT_DOMINATED),
            },
        }
        for policy in found.all
    }


def rows(found: Parts) -> list[tuple[str, str, Estimate]]:
    """Policy (or blind baseline), metric and estimate, for the long table: PART/accuracy, ..., by_weight/reward."""
    told = [
        (f"{BLIND}:{part.name}/{name}", "accuracy", Estimate(rate))
        for part in found.parts
        for name, rate in part.blind.items()
    ]
    for policy in found.all:
        for part in found.parts:
            figures = part.figures[policy]
            told.append((policy, f"{part.name}/questions", Estimate(part.questions)))
            told += [(policy, f"{part.name}/{name}", one) for name, one in _named(figures)]
            for name in ("deviation", "median"):
                if (value := getattr(figures, name)) is not None:
                    told.append((policy, f"{part.name}/reward_{name}", Estimate(value)))
            told += [
                (policy, f"{part.name}/{name}", Estimate(value))
                for name, value in part.episodes.get(policy, {}).items()
            ]
        for kind, of in {**found.kinds, "by_weight": found.by_weight}.items():
            told += [(policy, f"{kind}/{name}", one) for name, one in _named(of[policy])]
    return told


def _named(figures: Figures) -> list[tuple[str, Estimate]]:
    named = [("accuracy", figures.success)]
    if figures.of_method is not None:
        named.append(
            (
                "accuracy_of_method",
                replace(figures.success, interval=figures.of_method, inner_interval=None),
            )
        )
    return [*named, *([("reward", figures.score)] if figures.score else [])]


def _share(success: Estimate) -> str:
    return f"{100 * success.value:.1f} {_ends(success.interval)}"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _mean(score: Estimate | None) -> str:
    if score is None or score.interval is None:
        return ""
    low, high = score.interval
    return f"{score.value:.3f} [{low:.3f}, {high:.3f}]"

"""Policies by part and over the parts: means, intervals and domination agree with what can be worked out by hand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stages.compare import read_blind
from test_compare import run

from posttrain.core.files import write_json
from posttrain.measures.intervals import jeffreys, weighted_rate_interval
from posttrain.report.compare import Run, compare_runs
from posttrain.report.pareto import shown_dominated
from posttrain.report.parts import (
    Parts,
    figures_by_policy,
    measure_parts,
    part_table,
    rows,
    sections,
    sentences,
)
from posttrain.report.tables import MAIN, long_table, markdown, sections_of

WEIGHTS = {"a": 3.0, "b": 1.0}
# Twenty questions of `a`, ten of `b`, of which every third is of `b`.
PART_OF = {f"q{number}": "b" if number % 3 == 2 else "a" for number in range(30)}


def rewards(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Rewards of all questions in their order, from those of each part."""
    given = {"a": iter(a), "b": iter(b)}
    return [next(given[part]) for part in PART_OF.values()]


def policy(name: str, *seeds: tuple[int, int]) -> list[Run]:
    """A run for each seed, by its numbers of right answers in `a` and `b`; wrong ones are worth 0.2."""
    return [
        run(name, seed, rewards([1.0] * a + [0.2] * (20 - a), [1.0] * b + [0.2] * (10 - b)))
        for seed, (a, b) in enumerate(seeds)
    ]


def parts(*runs: Run) -> Parts:
    blind = {"a": {"first_word": 0.25}}
    return measure_parts(runs, PART_OF, WEIGHTS, blind, resamples=400)


def test_a_part_has_its_own_mean_deviation_median_and_jeffreys_intervals() -> None:
    found = parts(*policy("sft", (5, 9)))
    a, b = found.parts
    assert (a.questions, b.questions) == (20, 10)
    figures = a.figures["sft"]
    assert figures.success.value == 0.25 and figures.median == 0.2
    for level, interval in (
        (0.95, figures.success.interval),
        (0.8, figures.success.inner_interval),
    ):
        tails = (1 - level) / 2, (1 + level) / 2
        assert interval == pytest.approx(stats.beta(5.5, 15.5).ppf(tails))
    scores = [1.0] * 5 + [0.2] * 15
    assert figures.score is not None and figures.score.value == pytest.approx(np.mean(scores))
    assert figures.deviation == pytest.approx(np.std(scores, ddof=1))
    assert b.figures["sft"].success.value == 0.9 and b.figures["sft"].median == 1.0


def test_all_questions_count_the_same_and_parts_by_their_weight() -> None:
    found = parts(*policy("sft", (5, 9), (7, 9)))
    assert found.all["sft"].success.value == pytest.approx((5 + 9 + 7 + 9) / 60)
    by_weight = found.by_weight["sft"]
    assert by_weight.success.value == pytest.approx(0.75 * 0.3 + 0.25 * 0.9)
    assert [one.value for one in by_weight.success.seeds] == pytest.approx([0.4125, 0.4875])
    assert by_weight.score is not None
    assert by_weight.score.value == pytest.approx(0.2 + 0.8 * (0.75 * 0.3 + 0.25 * 0.9))
    for estimate in (by_weight.success, by_weight.score):
        assert estimate.interval is not None and estimate.inner_interval is not None
        (low, high), (inner_low, inner_high) = estimate.interval, estimate.inner_interval
        assert low < inner_low < estimate.value < inner_high < high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.floats(0.5, 9))
def test_the_interval_of_one_weighted_rate_is_that_of_jeffreys(right: int, weight: float) -> None:
    found = weighted_rate_interval([(right / 40, 40, weight)], 0.95)
    assert found == pytest.approx(jeffreys(right, 40, 0.95), abs=0.01)


def test_weighted_rates_have_the_width_of_independent_ones() -> None:
    low, high = weighted_rate_interval([(0.3, 400, 3), (0.6, 300, 1)], 0.95)
    error = np.sqrt(0.75**2 * 0.21 / 400 + 0.25**2 * 0.24 / 300)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.03)
    assert (high + low) / 2 == pytest.approx(0.75 * 0.3 + 0.25 * 0.6, abs=0.005)


def test_three_seeds_give_an_interval_of_the_method_that_no_part_of_other_rate_widens() -> None:
    assert parts(*policy("sft", (5, 5), (5, 5))).all["sft"].of_method is None
    seeds = [(8, 1), (10, 1), (12, 1)]
    found = parts(*policy("sft", *seeds))
    for figures in (found.parts[0].figures["sft"], found.by_weight["sft"]):
        assert figures.of_method is not None and figures.success.interval is not None
        assert figures.of_method[0] <= figures.success.interval[0]
        assert figures.of_method[1] >= figures.success.interval[1]
    # Only `a` has seeds that differ, and it has three quarters of the weight.
    of_a, over = (one.of_method for one in (found.parts[0].figures["sft"], found.by_weight["sft"]))
    assert of_a and over and (over[1] - over[0]) < 0.85 * (of_a[1] - of_a[0])
    alike = parts(*policy("sft", (20, 0), (20, 0), (20, 0)))
    wide = alike.by_weight["sft"]
    assert wide.of_method == wide.success.interval  # no spread at all, so Jeffreys' remains


def test_one_is_shown_to_dominate_if_it_is_above_somewhere_and_below_nowhere() -> None:
    intervals = {
        "low": [(0.0, 0.1), (0.4, 0.6)],
        "high": [(0.2, 0.4), (0.3, 0.5)],
        "torn": [(0.5, 0.6), (0.0, 0.2)],
    }
    assert shown_dominated(intervals) == {"low": "high"}
    assert shown_dominated({"x": [(0.0, 0.2)], "y": [(0.2, 0.3)]}) == {}  # they touch


def test_the_front_and_the_dominated_are_named_on_points_and_by_intervals() -> None:
    found = parts(*policy("base", (0, 0)), *policy("sft", (15, 2)), *policy("ppo", (16, 2)))
    points, intervals = sentences(found)
    assert points == (
        "Over a and b, as measured, the Pareto front is PPO; base (by PPO) and SFT (by PPO) are dominated."
    )
    assert intervals == (
        "By 95 % intervals (of these trained models alone: of methods, 3 seeds of each would tell) the Pareto front is "
        "SFT and PPO; base (by SFT) is dominated."
    )
    metrics = figures_by_policy(found)
    assert metrics["sft"]["dominated_by"] == {"points": "ppo", "intervals": "none"}
    assert metrics["ppo"]["parts"]["a"]["accuracy"] == 0.8
    assert metrics["ppo"]["by_weight"]["accuracy"] == pytest.approx(0.65)


def test_of_methods_the_sentence_says_so() -> None:
    seeds = [(3, 3)] * 3
    (_, told) = sentences(parts(*policy("sft", *seeds), *policy("ppo", *seeds)))
    assert told == (
        "By 95 % intervals (of the methods, over other trainings too) no policy is dominated by another."
    )


def test_the_report_has_a_table_for_each_part_beside_its_blind_baselines() -> None:
    runs = [*policy("base", (0, 0)), *policy("sft", (15, 2)), *policy("ppo", (16, 2))]
    found = parts(*runs)
    table = part_table(found.parts[0])
    names = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert names == ["blind: first word", "base", "SFT", "PPO"]
    inner, outer = (stats.beta(16.5, 4.5).ppf([tail, 1 - tail]) * 100 for tail in (0.1, 0.025))
    assert f"80.0 | [{inner[0]:.1f}, {inner[1]:.1f}] | [{outer[0]:.1f}, {outer[1]:.1f}]" in table
    made = sections_of(markdown(compare_runs("selector", runs, 50), sections(found)))[1]
    assert "Part a, 20 test questions" in made and "Part b, 10 test questions" in made
    (over,) = [text for name, text in made.items() if name.startswith(MAIN) and "over the" in name]
    assert "| PPO " in over and "a 3, b 1" in over


def test_an_environment_has_its_episodes_beside_its_rates_and_a_mean_with_its_kind() -> None:
    turn = {"valid": True, "finished": True}
    wrong = turn | {"valid": False}
    runs = policy("sft", (5, 9))
    for row in runs[0].predictions:
        right = row["correct"]
        row |= {"turns": [turn] if right else [turn, wrong], "end": "goal" if right else "limit"}
    found = measure_parts(runs, PART_OF, WEIGHTS, {"b": {"expert": 1.0}}, 100, played={"b"})
    assert found.parts[0].episodes == {}
    assert found.parts[1].episodes["sft"] == pytest.approx(
        {"turns": 1.1, "invalid": 0.05, "cut": 0, "limit": 0.1, "error": 0}
    )
    assert found.kinds["questions"]["sft"].success.value == 0.25
    assert found.kinds["environments"]["sft"].success.value == 0.9
    table = part_table(found.parts[1]).splitlines()
    scripted, sft = ([cell.strip() for cell in line.split("|")] for line in table[2:])
    assert scripted[1:3] == ["expert (scripted)", "100.0"]
    assert sft[-6:-1] == ["1.1", "5.0", "0.0", "10.0", "0.0"]
    told = {metric: estimate.value for _, metric, estimate in rows(found)}
    assert told["b/turns"] == pytest.approx(1.1) and told["environments/accuracy"] == 0.9
    heads = next(iter(sections(found).values())).splitlines()[0].split("|")
    assert [head.strip() for head in heads[4:8]] == [
        "questions",
        "environments",
        "all",
        "by weight",
    ]


def test_the_long_table_has_the_parts_as_metrics() -> None:
    runs = [*policy("sft", (15, 2)), *policy("ppo", (16, 2))]
    text = long_table(compare_runs("selector", runs, 50), rows(parts(*runs)))
    read = {(row["policy"], row["metric"]): row for row in csv.DictReader(io.StringIO(text))}
    assert float(read["ppo", "a/accuracy"]["value"]) == 0.8
    assert float(read["ppo", "a/accuracy"]["low_80"]) == pytest.approx(
        stats.beta(16.5, 4.5).ppf(0.1), abs=1e-6
    )
    assert float(read["ppo", "b/reward_median"]["value"]) == 0.2
    assert float(read["blind:a/first_word", "accuracy"]["value"]) == 0.25


def test_the_best_blind_baseline_of_each_part_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counted = {"a": {"examples": 30}, "b": {"examples": 10}, "c": {"examples": 10}}
    known = {"a": {"x": 0.1, "y": 0.2}, "b": {"z": 0.4, "expert": 1.0}, "c": {}}
    write_json("metrics/examples.json", {"test": {"parts": counted, "baselines": known}})
    assert read_blind("generator", "a") == {"x": 0.1, "y": 0.2}
    assert read_blind("generator") == {"best of each part": pytest.approx(0.2)}
    write_json("metrics/pools.json", {"parts": {"a": {"test": {"learned": 0.5}}}})
    assert read_blind("selector", "a") == {"learned": 0.5}

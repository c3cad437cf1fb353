"""Claims about the comparison: it reads the policies of params, pairs by seed and question, and writes all measures."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from stages.best import main as best
from stages.compare import main

from posttrain.core.code import CODE, read_digest
from posttrain.core.errors import UserError
from posttrain.core.figures import figure_file
from posttrain.core.files import write_json, write_jsonl
from posttrain.core.params import FAMILIES, Params, check_params
from posttrain.core.schema import read_yaml
from posttrain.measures.crossed import crossed
from posttrain.measures.intervals import Array, jeffreys, rate_interval
from posttrain.measures.named import MEASURES, Measure, measured
from posttrain.measures.significance import holm, sign_flip_p
from posttrain.pools.plots import plot_rewards_by_kind
from posttrain.report.compare import (
    Comparison,
    Estimate,
    Result,
    Run,
    compare,
    compare_runs,
    read_left_out,
    read_runs,
    tables,
)
from posttrain.report.plots import (
    _draw,
    _zoom,
    plot_comparison,
    plot_cost,
)
from posttrain.report.tables import (
    changes_table,
    few_metrics,
    long_table,
    markdown,
    sections_of,
    table,
    values_table,
)

BLIND = {"shortest": 0.125, "majority_answer": 0.25}


def prediction(number: int, reward: float, split: str = "test") -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "split": split,
        "kind": "gold" if reward == 1 else "plausible",
        "edit": "-",
        "correct": reward == 1,
        "reward": reward,
        "expected_reward": reward / 2,
        "expected_reward_fitted": reward / 2,
        "probability_correct": 0.5,
        "probability_correct_fitted": 0.5,
        "logits": [0.0, 1.0],
        "chosen": 1,
    }


def run(policy: str, seed: int, rewards: Sequence[float], **changes: Any) -> Run:
    return Run(policy, seed, [prediction(n, r) | changes for n, r in enumerate(rewards)])


def results_of(*runs: Run, resamples: int = 100) -> dict[str, Result]:
    return compare(tables(runs), resamples)


def rows_of(comparison: Comparison) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(long_table(comparison))))


@pytest.fixture(autouse=True)
def _noted_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory: a project in which stage `code` has run."""
    monkeypatch.chdir(tmp_path)
    for family in ("selector", "generator"):
        write_json(CODE / f"{family}_evaluate", {})


def save(folder: Path, policy: str, seed: int, rewards: list[float], **changes: Any) -> None:
    target = folder / policy / str(seed)
    rows = [prediction(number, reward) for number, reward in enumerate(rewards)]
    write_jsonl(target / "predictions.jsonl", [prediction(99, 0.0, "val"), *rows])
    manifest = {
        "inputs": {
            "models/base": "b",
            f"models/selector/{policy}/{seed}": policy,
            "data/pools/test.jsonl": "t",
        },
        "params": {"evaluate": {"bootstrap": 10}},
        "stage": "selector_evaluate",
        "code": read_digest("selector_evaluate"),
    }
    write_json(target / "manifest.json", manifest | changes)
    curve = [{"temperature": t, "accuracy": 0.5, "reward": 0.6} for t in (0.0, 1.0, 1.2)]
    temperatures = {"fitted": 1.2, "at_bound": False, "curve": curve}
    write_json(target / "temperatures.json", temperatures)


def save_not_trained(folder: Path, policy: str, seed: int, reason: str) -> None:
    write_json(folder / policy / str(seed) / "not_trained.json", {"reason": reason})
    made_by = {"stage": "selector_evaluate", "code": read_digest("selector_evaluate")}
    write_json(folder / policy / str(seed) / "manifest.json", made_by)


# ------------------------------------------------------------------------------ the figures


def test_values_are_means_over_seeds_with_their_spread() -> None:
    found = compare_runs(
        "selector", [run("sft", 0, [1, 0.2, 0.2, 0.2]), run("sft", 1, [1, 1, 0.2, 0.2])], 100
    )
    accuracy = found.results["sft"].values["accuracy"]
    assert found.seeds == [0, 1] and found.questions == 4
    assert [seed.value for seed in accuracy.seeds] == [0.25, 0.5]
    assert accuracy.value == pytest.approx(0.375)
    assert accuracy.spread == pytest.approx(0.25 / np.sqrt(2))
    assert found.results["sft"].changes == {}
    gold, plausible = found.kinds["sft"]["gold"], found.kinds["sft"]["plausible"]
    assert gold.share.value == gold.right == pytest.approx(0.375) and plausible.right == 0
    assert (gold.reward, plausible.reward) == (1.0, pytest.approx(0.2))


def test_one_seed_has_no_spread() -> None:
    assert results_of(run("sft", 0, [1, 0.2]))["sft"].values["reward"].spread is None


def test_the_change_is_paired_with_sft_of_the_same_seed() -> None:
    # Each seed gains 0.1 on every question over its own SFT, however much the seeds differ.
    ppo = results_of(
        run("sft", 0, [0.1, 0.9, 0.3]),
        run("sft", 1, [0.8, 0.2, 0.6]),
        run("ppo", 1, [0.9, 0.3, 0.7]),
        run("ppo", 0, [0.2, 1.0, 0.4]),
    )["ppo"]
    change = ppo.changes["sft"]["reward"]
    assert change.value == pytest.approx(0.1)
    assert change.interval == pytest.approx((0.1, 0.1))
    assert [seed.value for seed in change.seeds] == pytest.approx([0.1, 0.1])


def test_an_unchanged_policy_changes_nothing() -> None:
    rewards = [1.0, 0.2, 0.4]
    change = results_of(run("sft", 0, rewards), run("dpo", 0, rewards))["dpo"].changes["sft"][
        "reward"
    ]
    assert (change.value, change.interval, change.p) == (0, (0, 0), 1.0)


def test_the_interval_of_a_clear_gain_leaves_out_zero_and_of_noise_holds_it() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(size=200)
    noise = generator.normal(0, 0.1, size=200)
    found = results_of(
        run("sft", 0, before.tolist()),
        run("ppo", 0, (before + noise + 0.1).tolist()),
        run("grpo", 0, (before + noise - noise.mean()).tolist()),
        resamples=1000,
    )
    ppo, grpo = found["ppo"].changes["sft"]["reward"], found["grpo"].changes["sft"]["reward"]
    assert ppo.interval is not None and grpo.interval is not None
    assert ppo.interval[0] > 0 and ppo.clear
    assert grpo.interval[0] < 0 < grpo.interval[1] and not grpo.clear


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_the_change_is_the_difference_of_the_means(pairs: list[tuple[float, float]]) -> None:
    before, after = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = results_of(run("sft", 0, before), run("rloo", 0, after), resamples=50)
    change = found["rloo"].changes["sft"]["reward"]
    sft, rloo = (found[name].values["reward"].value for name in ("sft", "rloo"))
    assert change.value == pytest.approx(rloo - sft)
    assert change.interval is not None and change.inner_interval is not None
    (low, high), (low_80, high_80) = change.interval, change.inner_interval
    assert low <= low_80 <= high_80 <= high


def test_rates_have_jeffreys_intervals_and_means_have_not() -> None:
    found = compare_runs("selector", [run("sft", 4, [1, 0.2, 1, 1, 1])], 100)
    sft, kinds = found.results["sft"], found.kinds["sft"]
    for rate, right in (
        (sft.values["accuracy"], 4),
        (kinds["gold"].share, 4),
        (kinds["plausible"].share, 1),
    ):
        for estimate in (rate, *rate.seeds):
            assert estimate.interval == pytest.approx(jeffreys(right, 5, 0.95))
            assert estimate.inner_interval == pytest.approx(jeffreys(right, 5, 0.8))
    expected = sft.values["expected_reward"]
    assert expected.interval == pytest.approx((0.26, 0.5))  # resampled, so not beyond
    assert sft.values["reward"].seeds == (Estimate(pytest.approx(0.84)),)


def test_a_rate_over_seeds_has_the_interval_of_their_clustered_answers() -> None:
    rewards = [[1, 1, 0.2, 1, 0.2, 1], [1, 0.2, 0.2, 1, 1, 1]]
    found = results_of(*(run("sft", seed, rewards[seed]) for seed in (0, 1)))
    accuracy = found["sft"].values["accuracy"]
    assert accuracy.interval == rate_interval((np.array(rewards) == 1).astype(float), 0.95)
    assert accuracy.seeds[1].interval == pytest.approx(jeffreys(4, 6, 0.95))


def test_the_base_policy_is_like_any_other_and_equal_answers_of_its_seeds_count_once() -> None:
    runs = [run(policy, seed, [0.2, 1.0, 0.2]) for policy in ("base", "sft") for seed in (0, 1)]
    base = results_of(*runs)["base"]
    assert base.values["accuracy"].spread == 0
    assert base.values["accuracy"].interval == pytest.approx(jeffreys(1, 3, 0.95))
    assert len(base.changes["sft"]["accuracy"].seeds) == 2


def test_a_policy_that_chooses_the_same_with_more_certainty_has_a_higher_expected_reward_only() -> (
    None
):
    sft = run("sft", 0, [1.0, 0.2, 1.0])
    surer = [row | {"expected_reward": row["expected_reward"] + 0.1} for row in sft.predictions]
    changes = results_of(sft, Run("exact", 0, surer))["exact"].changes["sft"]
    assert changes["reward"].value == 0
    assert changes["expected_reward"].value == pytest.approx(0.1)
    assert changes["expected_reward"].interval == pytest.approx((0.1, 0.1))


def test_the_changes_of_the_table_are_adjusted_together_and_each_other_measure_by_itself() -> None:
    generator = np.random.default_rng(1)
    runs = [
        Run(
            policy,
            0,
            [
                prediction(n, 1.0 if generator.uniform() < right else 0.2)
                | {"probability_correct": generator.uniform()}
                for n in range(60)
            ],
        )
        for policy, right in (("sft", 0.5), ("ppo", 0.7), ("grpo", 0.6))
    ]
    values = tables(runs)
    found = compare(values, 50)
    names = [measure.name for measure in MEASURES]

    def p(policy: str, measure: str) -> float:
        return sign_flip_p((values[policy] - values["sft"])[0, :, names.index(measure)])

    shown = [
        (policy, measure.name)
        for policy in ("ppo", "grpo")
        for measure in MEASURES
        if measure.change
    ]
    expected = holm([p(*pair) for pair in shown])
    assert [found[policy].changes["sft"][name].p for policy, name in shown] == expected
    rewards = holm([p(policy, "reward") for policy in ("ppo", "grpo")])
    assert [found[policy].changes["sft"]["reward"].p for policy in ("ppo", "grpo")] == rewards


def test_the_methods_and_no_control_are_compared_with_sft_plus_too() -> None:
    found = results_of(
        run("base", 0, [0.2, 0.2]),
        run("sft", 0, [0.2, 0.2]),
        run("sft_plus", 0, [1, 0.2]),
        run("ppo", 0, [1, 1]),
    )
    compared = {policy: set(result.changes) for policy, result in found.items()}
    assert compared == {
        "base": {"sft"}, "sft": set(), "sft_plus": {"sft"}, "ppo": {"sft", "sft_plus"},
    }  # fmt: skip
    assert found["ppo"].changes["sft"]["accuracy"].value == 1
    assert found["ppo"].changes["sft_plus"]["accuracy"].value == 0.5
    assert found["sft_plus"].changes["sft"]["accuracy"].value == 0.5


def noisy(policies: Sequence[str], seeds: int, questions: int) -> dict[str, Array]:
    """Values of policies whose answers are drawn at random."""
    generator = np.random.default_rng(7)
    size = (seeds, questions, len(MEASURES))
    return {policy: (generator.uniform(size=size) < 0.6).astype(float) for policy in policies}


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_changes_against_each_reference_are_adjusted_by_themselves(seeds: int) -> None:
    """By the number that the note of the table names."""
    values = noisy(("base", "sft", "sft_plus", "ppo", "grpo"), seeds, 60)
    shown = [place for place, measure in enumerate(MEASURES) if measure.change]
    found = compare(values, 20)
    comparison = Comparison("selector", range(seeds), 60, found, {key: {} for key in values}, {})
    sections = sections_of(markdown(comparison))[1]
    for reference, policies in (
        ("sft", ("base", "sft_plus", "ppo", "grpo")),
        ("sft_plus", ("ppo", "grpo")),
    ):
        assert list(comparison.against(reference)) == list(policies)
        raw = [
            p_of(values[policy][:, :, m] - values[reference][:, :, m])
            for policy in policies
            for m in shown
        ]
        adjusted = [
            found[policy].changes[reference][MEASURES[m].name].p
            for policy in policies
            for m in shown
        ]
        assert adjusted == pytest.approx(holm(raw)) and min(raw) < 0.5
        count = len(policies) * len(shown)
        assert min(holm(raw)) == pytest.approx(min(1, count * min(raw)))
        name = {"sft": "SFT", "sft_plus": "SFT+"}[reference]
        note = sections[f"Change against {name}, percentage points"]
        assert f"adjusted for the {count} changes of this table (Holm)" in note


def p_of(differences: Array) -> float:
    """The p-value of the method, or of these models if there are too few seeds."""
    method = crossed(differences)
    return sign_flip_p(differences.mean(axis=0)) if method is None else method.p


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.91), (5, 0.93)])
def test_the_interval_against_sft_plus_covers_what_rl_adds_to_it(
    seeds: int, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SFT is worse by more than RL adds, and the seeds of all three differ."""
    monkeypatch.setattr("posttrain.report.compare.sign_flip_p", lambda _: 1.0)
    rng = np.random.default_rng(seeds)
    skill = rng.normal(0.6, 0.15, 200_000).clip(0.1, 0.9)
    added, trials, covered = 0.04, 400, 0
    for _ in range(trials):
        asked = rng.choice(skill, 150)

        def answers(gain: float, asked: Array = asked) -> Array:
            trained = asked + gain + rng.normal(0, 0.01, (seeds, 1))
            return (rng.random((seeds, 150)) < trained).astype(float)[:, :, None]

        values = {"sft": answers(-0.08), "sft_plus": answers(0.0), "ppo": answers(added)}
        change = compare(values, 10, MEASURES[:1])["ppo"].changes["sft_plus"]["accuracy"]
        assert change.interval is not None and change.of_method
        covered += change.interval[0] <= added <= change.interval[1]
    assert least <= covered / trials <= 0.99


def test_seeds_that_disagree_are_not_clear() -> None:
    up, down = Estimate(0.2), Estimate(-0.1)
    assert Estimate(0.05, seeds=(up, up), p=0.01).clear
    assert not Estimate(0.05, seeds=(up, down), p=0.01).clear
    assert Estimate(0.05, seeds=(up, down), p=0.01).significant
    assert not Estimate(0.05, seeds=(up,), p=0.05).clear
    assert Estimate(0.05, seeds=(up, up, down), p=0.01, of_method=True).clear


def test_with_three_seeds_a_change_is_of_the_method_and_that_of_these_models_is_kept() -> None:
    generator = np.random.default_rng(2)
    runs = []
    for seed in range(4):
        skill = generator.uniform(size=80)
        runs.append(run("sft", seed, skill.tolist()))
        gained = skill + 0.05 + generator.normal(0, 0.1) + generator.normal(0, 0.02, 80)
        runs.append(run("ppo", seed, gained.tolist()))
    values = tables(runs)
    found = compare(values, 200)["ppo"]
    names = [measure.name for measure in MEASURES]
    differences = (values["ppo"] - values["sft"])[:, :, names.index("reward")]
    expected = crossed(differences)
    assert expected is not None
    method, models = found.changes["sft"]["reward"], found.of_models["sft"]["reward"]
    assert method.of_method and not models.of_method
    assert method.interval == expected.interval(0.95) and method.p == expected.p
    assert models.p == sign_flip_p(differences.mean(axis=0))
    assert method.interval is not None and models.interval is not None
    assert method.interval[1] - method.interval[0] > 3 * (models.interval[1] - models.interval[0])

    comparison = compare_runs("selector", runs, 200)
    text, rows = markdown(comparison), long_table(comparison)
    assert "for the methods: 95 % intervals over other trainings and other questions" in text
    assert list(sections_of(text)[1])[-1] == "The same changes for these trained models alone"
    assert len(re.findall(r"^\| PPO ", text, re.M)) == 3
    assert "ppo,mean,reward_vs_sft," in rows and "ppo,mean,reward_vs_sft_of_method," in rows


def test_with_two_seeds_there_are_no_changes_of_methods() -> None:
    runs = [run(policy, seed, [0.2, 1.0, 0.4]) for policy in ("sft", "ppo") for seed in (0, 1)]
    comparison = compare_runs("selector", runs, 50)
    assert not comparison.of_methods
    assert "Brackets are for these trained models" in markdown(comparison)
    assert "for the methods" not in markdown(comparison)
    assert "of_method" not in long_table(comparison)


def test_without_sft_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(UserError, match="compare needs sft"):
        results_of(run("ppo", 0, [1.0]))


def test_policies_of_different_seeds_are_refused() -> None:
    with pytest.raises(UserError, match="ppo and sft are not there for the same seeds"):
        results_of(run("sft", 0, [1.0]), run("ppo", 1, [1.0]))


# ------------------------------------------------------------------------------ what is read


def test_only_the_instances_named_in_params_are_read(tmp_path: Path) -> None:
    for policy, seed in (("sft", 0), ("ppo", 0), ("sft", 1), ("dpo", 0)):
        save(tmp_path, policy, seed, [1.0, 0.2])
    runs = read_runs(tmp_path, ["sft", "ppo"], [0])
    assert [(one.policy, one.seed, len(one.predictions)) for one in runs] == [
        ("sft", 0, 2),
        ("ppo", 0, 2),
    ]


def test_a_policy_that_was_not_trained_with_every_seed_is_left_out_with_the_reasons(
    tmp_path: Path,
) -> None:
    for seed in (0, 1):
        for policy in ("sft", "ppo"):
            save(tmp_path, policy, seed, [1.0, 0.2])
    save(tmp_path, "dpo", 0, [1.0, 0.2])
    save_not_trained(tmp_path, "dpo", 1, "no pairs")
    policies = ["sft", "ppo", "dpo"]
    assert {one.policy for one in read_runs(tmp_path, policies, [0, 1])} == {"sft", "ppo"}
    assert read_left_out(tmp_path, policies, [0, 1]) == {"dpo": "seed 1: no pairs"}
    assert read_left_out(tmp_path, policies, [1]) == {"dpo": "no pairs"}
    assert read_left_out(tmp_path, policies, [0]) == {}
    write_json(CODE / "selector_evaluate", {"edited": "1"})
    with pytest.raises(UserError, match="was made with other code of selector_evaluate"):
        read_left_out(tmp_path, policies, [0, 1])


def test_a_missing_instance_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "selector_evaluate"
    save(folder, "sft", 0, [1.0])
    message = r"ppo/0/predictions.jsonl: missing; run dvc repro selector_evaluate"
    with pytest.raises(UserError, match=message):
        read_runs(folder, ["sft", "ppo"], [0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"params": {"evaluate": {"bootstrap": 20}}}, "params"),
        ({"inputs": {"models/base": "b", "data/pools/test.jsonl": "other"}}, "data"),
        ({"inputs": {"models/base": "c", "data/pools/test.jsonl": "t"}}, "data"),
    ],
)
def test_predictions_under_other_conditions_are_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    save(tmp_path, "sft", 0, [1.0])
    save(tmp_path, "ppo", 0, [1.0], **changes)
    with pytest.raises(UserError, match=f"ppo/0 and .*sft/0 differ in their {named}"):
        read_runs(tmp_path, ["sft", "ppo"], [0])


def test_other_questions_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0, 0.2])
    save(tmp_path, "ppo", 0, [1.0])
    with pytest.raises(UserError, match=r"ppo/0 has 1 test questions, .*sft/0 has 2"):
        read_runs(tmp_path, ["sft", "ppo"], [0])
    write_jsonl(tmp_path / "ppo/0/predictions.jsonl", [prediction(0, 1.0), prediction(5, 1.0)])
    with pytest.raises(UserError, match=r"ppo/0 has question q5 where .*sft/0 has q1"):
        read_runs(tmp_path, ["sft", "ppo"], [0])


def test_predictions_of_other_code_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0])
    save(tmp_path, "ppo", 0, [1.0], code="0" * 64)
    assert len(read_runs(tmp_path, ["sft"], [0])) == 1
    with pytest.raises(UserError, match="ppo/0 was made with other code of selector_evaluate"):
        read_runs(tmp_path, ["sft", "ppo"], [0])


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0])
    code = read_digest("selector_evaluate")
    manifest = {"stage": "selector_evaluate", "code": code, "inputs": {}}
    write_json(tmp_path / "sft/0/manifest.json", manifest)
    with pytest.raises(UserError, match="not a manifest of an evaluation"):
        read_runs(tmp_path, ["sft"], [0])


def test_predictions_without_a_column_are_refused() -> None:
    with pytest.raises(UserError, match="predictions without 'reward', which reward needs"):
        measured([{name: value for name, value in prediction(0, 1.0).items() if name != "reward"}])


# ------------------------------------------------------------------------------ what is written


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    generator = np.random.default_rng(3)
    runs = []
    for policy, right in (("sft", 0.6), ("ppo", 0.66), ("grpo", 0.64), ("dpo", 0.55)):
        for seed in range(3):
            rewards = np.where(generator.uniform(size=120) < right, 1.0, 0.2)
            runs.append(run(policy, seed, rewards.tolist()))
    return compare_runs("selector", runs, 300, BLIND)


def test_metrics_are_few_and_named_alike_for_every_policy(comparison: Comparison) -> None:
    metrics = few_metrics(comparison)
    assert list(metrics) == ["sft", "ppo", "grpo", "dpo"]
    assert {tuple(of_policy) for of_policy in metrics.values()} == {("accuracy",)}


def test_a_measure_is_added_in_one_place_and_is_everywhere(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Measure("words", "mean", "words", change="the number of words", metric=True)
    measures = (*MEASURES, words)
    runs = [run("sft", 0, [1, 0.2, 1], words=0.2), run("ppo", 0, [1, 1, 1], words=0.3)]
    found = replace(
        comparison,
        seeds=[0],
        results=compare(tables(runs, measures), 50, measures),
        kinds={"sft": {}, "ppo": {}},
        measures=measures,
    )
    rows = {(row["policy"], row["metric"]): row["value"] for row in rows_of(found)}
    assert float(rows["ppo", "words"]) == 0.3
    assert float(rows["ppo", "words_vs_sft"]) == pytest.approx(0.1)
    assert few_metrics(found)["ppo"]["words"] == 0.3
    head, _, ppo = changes_table(found, "sft").splitlines()
    assert "the number of words" in head and "+10.0 [+10.0, +10.0]" in ppo
    assert "the number of words" in values_table(found)


def test_the_long_table_has_one_number_per_row(comparison: Comparison) -> None:
    rows = rows_of(comparison)
    keys = [(row["policy"], row["seed"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {("ppo", "2", "reward_vs_sft"), ("blind:shortest", "", "accuracy")} <= set(keys)
    assert (rows[0]["metric"], float(rows[0]["value"])) == ("questions", 120)
    assert all(row["value"] for row in rows)
    of = dict(zip(keys, rows, strict=True))
    ends = ("low", "low_80", "value", "high_80", "high")
    for key in (
        ("ppo", "mean", "accuracy"),
        ("ppo", "1", "accuracy"),
        ("ppo", "mean", "share_gold"),
        ("ppo", "mean", "reward"),
        ("ppo", "mean", "reward_vs_sft"),
    ):
        numbers = [float(of[key][end]) for end in ends]
        assert numbers == sorted(set(numbers))
    assert not any(of["ppo", "1", "reward"][end] for end in ends if end != "value")
    assert of["ppo", "mean", "accuracy"]["spread"] and of["ppo", "mean", "accuracy_vs_sft"]["p"]
    assert not of["sft", "mean", "accuracy"]["p"] and "reward_ratio" not in {k[2] for k in keys}


def names(comparison: Comparison) -> list[str]:
    """The measures in the tables for readers."""
    return [measure.name for measure in comparison.shown]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_tables_for_readers_have_a_column_for_each_measure(comparison: Comparison) -> None:
    head, _, sft, ppo, *_ = values_table(comparison).splitlines()
    headings = [measure.change for measure in MEASURES if measure.change]
    assert cells(head) == ["right answers, % [95 %]", *headings]
    accuracy = comparison.results["ppo"].values["accuracy"].value
    assert cells(ppo)[0] == "PPO" and cells(ppo)[1].startswith(f"{100 * accuracy:.1f} [")
    assert sft.count("[") == len(headings)
    head, _, *rows = changes_table(comparison, "sft").splitlines()
    assert cells(head) == ["change against SFT, points [95 %]", *headings]
    assert [cells(row)[0] for row in rows] == ["PPO", "GRPO", "DPO"]
    assert len({len(line) for line in changes_table(comparison, "sft").splitlines()}) == 1


THREE = (
    MEASURES[0],
    Measure("fitted_accuracy", "mean", "fitted", change="a sample at the fitted temperature"),
    Measure("sample_accuracy", "mean", "probability_correct", change="a sample at temperature 1"),
)


@pytest.mark.parametrize("seeds", [1, 3])
def test_three_measures_and_two_references_are_in_tables_csv_and_picture(
    seeds: int, tmp_path: Path
) -> None:
    generator = np.random.default_rng(5)
    policies = {"base": 0.4, "sft": 0.5, "sft_plus": 0.6, "ppo": 0.8}
    runs = [
        Run(
            policy,
            seed,
            [
                prediction(n, float(generator.uniform() < right))
                | {"probability_correct": right, "fitted": right - generator.uniform(0, 0.1)}
                for n in range(80)
            ],
        )
        for policy, right in policies.items()
        for seed in range(seeds)
    ]
    found = Comparison(
        "generator",
        range(seeds),
        80,
        compare(tables(runs, THREE), 50, THREE),
        {key: {} for key in policies},
        {},
        THREE,
    )
    sections = sections_of(markdown(found))[1]
    assert list(sections)[:3] == [
        "Right answers, % of the test questions",
        "Change against SFT+, percentage points",
        "Change against SFT, percentage points",
    ]
    for heading, rows in zip(sections, (4, 1, 3), strict=False):
        table = sections[heading].split("\n\n")[0].splitlines()
        assert cells(table[0])[1:] == [measure.change for measure in THREE]
        assert len(table) == 2 + rows
    assert "The fitted temperature is each policy's own" in sections[next(iter(sections))]
    metrics = {row["metric"] for row in rows_of(found) if row["policy"] == "ppo"}
    assert {"fitted_accuracy_vs_sft", "fitted_accuracy_vs_sft_plus"} <= metrics
    assert ("fitted_accuracy_vs_sft_plus_of_method" in metrics) == (seeds == 3)
    plot_comparison(found, tmp_path / "a.png")
    wide = int.from_bytes((tmp_path / "a.png").read_bytes()[16:20], "big")
    assert wide == 1890  # a panel for each reference


def test_without_sft_plus_there_is_no_word_of_it(comparison: Comparison) -> None:
    assert comparison.references == ["sft"]
    assert "SFT+" not in markdown(comparison) and "sft_plus" not in long_table(comparison)


def test_controls_come_first_wherever_params_names_them() -> None:
    runs = [run(policy, 0, [1, 0.2]) for policy in ("ppo", "sft_plus", "base", "sft")]
    assert list(compare_runs("selector", runs, 20).results) == ["base", "sft", "sft_plus", "ppo"]


def test_notes_follow_the_findings_and_further_sections_the_tables(comparison: Comparison) -> None:
    noted = replace(comparison, notes=["SFT stopped at its plateau."])
    text = markdown(noted, {"Effort": "| a |\n|---|\n| 1 |\n\nTokens."})
    said, sections = sections_of(text)
    assert said[-1] == "- SFT stopped at its plateau." and said[0].startswith("- **")
    assert sections["Effort"] == "| a |\n|---|\n| 1 |\n\nTokens."
    assert list(sections)[:1] + list(sections)[-2:] == [
        "Right answers, % of the test questions",
        "Effort",
        "The same changes for these trained models alone",
    ]


def test_a_policy_that_was_not_trained_has_a_row_and_a_sentence_and_no_numbers() -> None:
    runs = [run(policy, 0, [1.0, 0.2]) for policy in ("sft", "ppo")]
    for trained in (runs, runs[:1]):
        reasons = {"grpo": "nothing to ask", "rloo": "nothing to ask", "dpo": "no pairs"}
        comparison = compare_runs("selector", trained, 50, left_out=reasons)
        text = markdown(comparison)
        for name in ("GRPO", "RLOO", "DPO"):
            assert re.search(rf"^\| {name}, not trained +\|[ |]+\|$", text, re.M)
        assert "- **GRPO and RLOO were not trained**: nothing to ask.\n" in text
        assert "- **DPO was not trained**: no pairs.\n" in text
        assert not {"grpo", "rloo", "dpo"} & few_metrics(comparison).keys()
        assert "dpo" not in long_table(comparison)


def test_only_clear_changes_are_bold(comparison: Comparison) -> None:
    up = Estimate(0.05, (0.02, 0.08), (0.03, 0.07), (Estimate(0.05),), p=0.01)
    noise = replace(up, p=0.2)
    sft, ppo = comparison.results["sft"], comparison.results["ppo"]
    changes = dict.fromkeys(names(comparison), noise) | {"accuracy": up}
    found = replace(comparison, results={"sft": sft, "ppo": Result(ppo.values, {"sft": changes})})
    row = changes_table(found, "sft").splitlines()[-1]
    assert cells(row)[:3] == ["PPO", "**+5.0** [+2.0, +8.0]", "+5.0 [+2.0, +8.0]"]


def test_the_markdown_opens_with_findings_and_says_how_sure_its_numbers_are(
    comparison: Comparison,
) -> None:
    said, sections = sections_of(markdown(comparison))
    assert all(line.startswith("- ") for line in said)
    values, changes, kinds, models = (part.split("\n\n") for part in sections.values())
    assert values[0] == values_table(comparison)
    assert "means over seeds 0, 1, 2" in values[1]
    assert changes[0] == changes_table(comparison, "sft")
    assert (
        f"adjusted for the {3 * len(names(comparison))} changes of this table (Holm)" in changes[1]
    )
    assert kinds[0] == "By kind of the chosen candidate:"
    assert cells(kinds[1].splitlines()[0])[0] == "% of the questions"
    assert models[0] == changes_table(comparison, "sft", of_models=True)
    assert "for these trained models, over other questions alone" in models[1]
    assert (
        f"adjusted for the {3 * len(names(comparison))} changes of the table (Holm), and every seed agrees"
        in models[1]
    )
    one = markdown(compare_runs("generator", [run("sft", 4, [1, 0.2])], 20))
    assert "2 test questions; seed 4." in one and "every seed" not in one
    assert "Holm" not in one and "hange" not in one  # SFT alone


def test_right_and_wrong_answers_of_one_kind_are_counted_apart() -> None:
    def answers(*given: tuple[str, bool]) -> list[dict[str, Any]]:
        rows = run("sft", 0, [1.0] * len(given)).predictions
        return [
            {**row, "kind": kind, "correct": correct}
            for row, (kind, correct) in zip(rows, given, strict=True)
        ]

    sft = answers(("right", True), ("wrong_answer_only", True), ("wrong_program", False))
    ppo = answers(("wrong_answer_only", True), ("wrong_answer_only", True), ("odd", False))
    text = markdown(compare_runs("generator", [Run("sft", 0, sft), Run("ppo", 0, ppo)], 20))
    told, shares = sections_of(text)[1]["Right and wrong answers by kind"].split("\n\n")
    assert told.startswith("By first failure of the answer (a right")
    rows = list(map(cells, shares.splitlines()))
    assert rows[0] == ["% of the questions", "SFT", "PPO"]
    assert rows[2:] == [
        ["right: wrong answer only", "33.3", "66.7"],
        ["right: no failure", "33.3", "0.0"],
        ["wrong: odd", "0.0", "33.3"],
        ["wrong: wrong program", "33.3", "0.0"],
    ]


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    made = table(["a", "b", "c"], [["1 x", "**+10.0** [1, 2]", ""], ["y", "−2.0", ""]])
    assert made.splitlines() == [
        "| a   |                b | c |",
        "|-----|-----------------:|---|",
        "| 1 x | **+10.0** [1, 2] |   |",
        "| y   |             −2.0 |   |",
    ]


# ------------------------------------------------------------------------------ pictures


def test_plots_have_the_same_bytes_twice(tmp_path: Path, comparison: Comparison) -> None:
    for name in ("a.png", "b.png"):
        plot_comparison(comparison, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_axis_fits_the_trained_policies_and_base_only_where_it_is_near() -> None:
    axes = Figure().subplots()
    trained = [Estimate(0.90, (0.88, 0.92)), Estimate(0.89, (0.87, 0.91), seeds=(Estimate(0.95),))]
    _zoom(axes, {"sft": trained[:1], "ppo": trained[1:], "base": [Estimate(0.5, (0.45, 0.55))]})
    low, high = axes.get_xlim()
    assert 86 < low < 87 and 95 < high < 96
    _zoom(axes, {"sft": trained[:1], "ppo": trained[1:], "base": [Estimate(0.85, (0.80, 0.9))]})
    assert axes.get_xlim()[0] < 80


def test_a_value_outside_the_axis_is_an_arrow_with_its_number() -> None:
    axes = Figure().subplots()
    axes.set_xlim(80, 90)
    _draw(axes, Estimate(0.5, (0.4, 0.6), (0.45, 0.55)), 0, "k", "o")
    (arrow,) = axes.lines
    assert arrow.get_marker() == "<" and 80 < arrow.get_xdata()[0] < 81
    assert axes.texts[0].get_text() == "50.0"


def test_the_bar_of_the_narrower_interval_is_the_thicker_one_and_a_sample_is_open() -> None:
    axes = Figure().subplots()
    axes.set_xlim(0, 100)
    _draw(axes, Estimate(0.5, (0.2, 0.8), (0.4, 0.6)), 0, "k", "D")
    outer, inner, point = axes.lines
    assert (tuple(outer.get_xdata()), tuple(inner.get_xdata())) == ((20, 80), (40, 60))
    assert outer.get_linewidth() < inner.get_linewidth()
    assert point.get_markerfacecolor() == "#ffffff"


def test_sft_alone_can_be_plotted(tmp_path: Path) -> None:
    plot_comparison(compare_runs("selector", [run("sft", 0, [1, 0.2])], 20), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_names_in_the_plot_of_cost_do_not_lie_on_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr("posttrain.report.plots.titles", lambda figure, *_: drawn.append(figure))
    points = {name: (100.0, Estimate(0.9, (0.85, 0.95))) for name in ("sft", "ppo", "grpo")}
    plot_cost("selector", points, "-", tmp_path / "cost.png")
    places = sorted(text.xy[1] for text in drawn[0].axes[0].texts)
    assert len(set(places)) == 3


def test_rewards_are_plotted_for_any_kinds(tmp_path: Path) -> None:
    candidates = [{"kind": "gold", "reward": 1.0}, {"kind": "odd", "reward": 0.3}]
    plot_rewards_by_kind([candidates], tmp_path / "rewards.png")
    assert (tmp_path / "rewards.png").stat().st_size > 1000


def test_no_machine_or_version_is_in_a_picture(tmp_path: Path) -> None:
    with figure_file(tmp_path / "a.png", (2, 2)) as figure:
        figure.subplots()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes().lower()


# ------------------------------------------------------------------------------ the stages

POLICIES = ["base", "sft", "ppo"]
ENDING = {"steps": 4, "best_step": 3, "plateau": True}


def of_two_seeds() -> Params:
    values = read_yaml(Path(__file__).parents[1] / "params.yaml")
    values |= {"seeds": [0, 1], "compare": {"bootstrap": 50}}
    for family in FAMILIES:
        values[family] |= {"policies": POLICIES, "methods": ["ppo"]}
    return check_params(values)


PARAMS = of_two_seeds()


def test_the_stage_writes_and_prints_the_comparison_of_either_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for family in ("selector", "generator"):
        for policy in POLICIES:
            for seed in PARAMS.seeds:
                save(Path(f"data/{family}_evaluate"), policy, seed, [1.0, 0.2, 0.2])
    write_json("metrics/pools.json", {"blind": {"test": BLIND}})
    write_json("metrics/examples.json", {"test": {"baselines": {"first_number": 0.25}}})
    write_json("data/inputs/tuning.json", {})
    for part in ("pools", "examples"):
        write_jsonl(f"data/{part}/val.jsonl", [{"id": "v1"}])
    for family, policy, seed in product(FAMILIES, ("sft", "ppo"), PARAMS.seeds):
        curve = Path(f"plots/curves/{family}/{policy}/{seed}/val/reward.tsv")
        curve.parent.mkdir(parents=True)
        curve.write_text("step\treward\n0\t0.5\n4\t0.6\n")
        write_json(curve.parents[1] / "training.json", ENDING)

    for family in FAMILIES:
        main(PARAMS, family)
        written = Path(f"plots/compare/{family}.md").read_text()
        assert (
            "SFT had stopped improving when RL began: its best validation was at step 3 of 4 and"
            in (" ".join(written.split()))
        )
        assert "### Effort" in written and "### Temperature" in written
        assert f"{family.capitalize()}: in the greedy answer" in (
            printed := capsys.readouterr().out
        )
        assert re.search(r"\| PPO +\| +33\.3 \[", printed)
        assert re.search(r"\| PPO +\| +0\.0 \[", printed)
        assert set(json.loads(Path(f"metrics/compare/{family}.json").read_text())) == set(POLICIES)
        with Path(f"plots/compare/{family}.csv").open(encoding="utf-8") as file:
            assert {row["policy"] for row in csv.DictReader(file)} >= set(POLICIES)
    names = [f"{end}.{suffix}" for end in ("", "-curves", "-temperatures") for suffix in ("png",)]
    assert sorted(os.listdir("plots/compare")) == sorted(
        f"{family}{end}" for family in ("selector", "generator") for end in (".csv", ".md", *names)
    )
    for seed in PARAMS.seeds:
        for policy in ("base", "ppo"):
            shutil.rmtree(f"data/generator_evaluate/{policy}/{seed}")
            save_not_trained(Path("data/generator_evaluate"), policy, seed, "no pairs")
    main(PARAMS, "generator")
    printed = capsys.readouterr().out
    assert "Generator: SFT answers 33.3" in printed
    assert "were not trained**: seed 0: no pairs; seed 1: no pairs." in printed
    write_json("metrics/pools.json", {})
    with pytest.raises(
        UserError, match=r"metrics/pools.json: no blind baselines of the test split"
    ):
        main(PARAMS, "selector")
    with pytest.raises(UserError, match="family 'chooser': expected one of selector, generator"):
        main(PARAMS, "chooser")


def test_the_best_policies_are_copied_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    right = {"base": 0.99, "sft": 0.6, "ppo": 0.7}
    for family, name in (("selector", "accuracy"), ("generator", "execution_accuracy")):
        for policy in POLICIES:
            for seed in PARAMS.seeds:
                metrics = {"val": {name: right[policy] - 0.1 * seed}}
                write_json(f"metrics/{family}_evaluate/{policy}/{seed}.json", metrics)
                write_json(f"models/{family}/{policy}/{seed}/who.json", policy)
    best(PARAMS)
    assert json.loads(Path("models/best/generator/who.json").read_text()) == "ppo"
    chosen = {"policy": "ppo", "seed": 0, "val_accuracy": 0.7}
    written = json.loads(Path("metrics/best.json").read_text())
    assert written == {"generator": chosen, "selector": chosen}
    for family in ("selector", "generator"):
        for seed in PARAMS.seeds:
            left_out = {"not_trained": "no pairs"}
            write_json(f"metrics/{family}_evaluate/ppo/{seed}.json", left_out)
    best(PARAMS)
    assert json.loads(Path("models/best/generator/who.json").read_text()) == "sft"
    printed = capsys.readouterr().out.replace("\u00a0", " ")
    assert "models/best/selector: ppo, seed 0, 70.0 % right on validation" in printed
    write_json("metrics/selector_evaluate/ppo/1.json", {})
    with pytest.raises(UserError, match=r"selector_evaluate/ppo/1\.json: no val\.accuracy"):
        best(PARAMS)

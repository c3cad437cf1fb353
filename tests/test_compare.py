"""Claims about the comparison: it reads what params name and pairs by seed and question."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from stages.compare import main
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file, write_json, write_jsonl
from posttrain.measures.intervals import jeffreys, rate_interval
from posttrain.report.compare import Estimate, PolicyResult, Run, compare, load_runs
from posttrain.report.plots import _draw, plot_comparison, plot_rewards_by_kind
from posttrain.report.tables import flat_metrics, markdown, tidy_rows

TRIVIAL = {"shortest": 0.125, "majority_answer": 0.25}


def prediction(number: int, reward: float, split: str = "test") -> dict[str, Any]:
    return {
        "id": f"q{number}",
        "split": split,
        "kind": "gold" if reward == 1 else "plausible",
        "edit": "-",
        "correct": reward == 1,
        "reward": reward,
        "best_reward": 1.0,
        "expected_reward": reward / 2,
        "probability_correct": 0.5,
        "logits": [0.0, 1.0],
        "chosen": 1,
    }


def run(policy: str, seed: int, rewards: list[float]) -> Run:
    return Run(policy, seed, [prediction(number, r) for number, r in enumerate(rewards)])


def result_of(results: list[PolicyResult], policy: str) -> PolicyResult:
    return next(result for result in results if result.policy == policy)


def save(folder: Path, policy: str, seed: int, rewards: list[float], **changes: Any) -> None:
    target = folder / f"{policy}-{seed}"
    rows = [prediction(number, reward) for number, reward in enumerate(rewards)]
    write_jsonl(target / "predictions.jsonl", [prediction(99, 0.0, "val"), *rows])
    manifest = {
        "inputs": {
            "models/base": "b",
            f"models/{policy}-{seed}": policy,
            "data/rewards/test.jsonl": "t",
        },
        "params": {"evaluate": {"bootstrap": 10}},
        "prompt": "p",
        "evaluator": "e",
        "code": {},
    }
    write_json(target / "manifest.json", manifest | changes)


# ------------------------------------------------------------------------------ the figures


def test_figures_are_means_over_seeds_with_their_spread() -> None:
    results = compare([run("sft", 0, [1, 0.2, 0.2, 0.2]), run("sft", 1, [1, 1, 0.2, 0.2])], 100)
    sft = results[0]
    assert sft.seeds == (0, 1)
    assert [seed.value for seed in sft.accuracy.seeds] == [0.25, 0.5]
    assert sft.accuracy.value == pytest.approx(0.375)
    assert sft.accuracy.spread == pytest.approx(0.25 / np.sqrt(2))
    assert sft.reward_ratio.value == pytest.approx((0.4 + 0.6) / 2)
    assert sft.reward_median == 0.2
    assert sft.reward_deviation == pytest.approx(np.std([1, 1, 1] + [0.2] * 5, ddof=1))
    assert sft.chosen["gold"].value == pytest.approx(0.375)
    assert sft.kind_reward == {"gold": 1.0, "plausible": pytest.approx(0.2)}
    assert sft.reward_change is None


def test_validation_is_told_apart_from_the_test_questions() -> None:
    rows = [prediction(number, reward) for number, reward in enumerate([1.0, 0.2])]
    val = [prediction(9, 1.0, "val")]
    result = compare([Run("sft", 0, rows, val), Run("sft", 1, rows, [*val, *rows])], 50)[0]
    assert result.accuracy.value == 0.5
    assert result.validation == {
        "accuracy": pytest.approx((1 + 2 / 3) / 2),
        "reward": pytest.approx((1 + 2.2 / 3) / 2),
    }
    (metrics,) = flat_metrics("selector", [result], {}).values()
    assert metrics["sft"]["val_accuracy"] == pytest.approx(5 / 6, abs=1e-6)


def test_one_seed_has_no_spread() -> None:
    assert compare([run("sft", 0, [1, 0.2])], 50)[0].reward.spread is None


def test_the_change_is_paired_with_sft_of_the_same_seed() -> None:
    # Each seed gains 0.1 on every question over its own SFT, however much the seeds differ.
    runs = [
        run("sft", 0, [0.1, 0.9, 0.3]),
        run("sft", 1, [0.8, 0.2, 0.6]),
        run("ppo", 1, [0.9, 0.3, 0.7]),
        run("ppo", 0, [0.2, 1.0, 0.4]),
    ]
    change = result_of(compare(runs, 200), "ppo").reward_change
    assert change is not None
    assert change.value == pytest.approx(0.1)
    assert change.interval == pytest.approx((0.1, 0.1))
    assert [seed.value for seed in change.seeds] == pytest.approx([0.1, 0.1])


def test_an_unchanged_policy_changes_nothing() -> None:
    rewards = [1.0, 0.2, 0.4]
    change = compare([run("sft", 0, rewards), run("dpo", 0, rewards)], 50)[1].reward_change
    assert change is not None and (change.value, change.interval) == (0, (0, 0))


def test_the_interval_of_a_clear_gain_leaves_out_zero_and_of_noise_holds_it() -> None:
    generator = np.random.default_rng(0)
    before = generator.uniform(size=200)
    noise = generator.normal(0, 0.1, size=200)
    runs = [
        run("sft", 0, before.tolist()),
        run("ppo", 0, (before + noise + 0.1).tolist()),
        run("grpo", 0, (before + noise - noise.mean()).tolist()),
    ]
    _, ppo, grpo = compare(runs, 1000)
    assert ppo.reward_change is not None and ppo.reward_change.interval is not None
    assert grpo.reward_change is not None and grpo.reward_change.interval is not None
    assert ppo.reward_change.interval[0] > 0
    assert grpo.reward_change.interval[0] < 0 < grpo.reward_change.interval[1]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=30))
def test_the_change_is_the_difference_of_the_means(pairs: list[tuple[float, float]]) -> None:
    before, after = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    sft, rloo = compare([run("sft", 0, before), run("rloo", 0, after)], 50)
    assert rloo.reward_change is not None and rloo.reward_change.interval is not None
    assert rloo.reward_change.value == pytest.approx(rloo.reward.value - sft.reward.value)
    low, high = rloo.reward_change.interval
    low_80, high_80 = rloo.reward_change.inner_interval or (-np.inf, np.inf)
    assert low <= low_80 <= high_80 <= high


def test_rates_have_jeffreys_intervals_and_means_have_not() -> None:
    (sft,) = compare([run("sft", 4, [1, 0.2, 1, 1, 1])], 100)
    for rate, right in ((sft.accuracy, 4), (sft.chosen["gold"], 4), (sft.chosen["plausible"], 1)):
        for estimate in (rate, *rate.seeds):
            assert estimate.interval == pytest.approx(jeffreys(right, 5, 0.95))
            assert estimate.inner_interval == pytest.approx(jeffreys(right, 5, 0.8))
    assert sft.expected_reward.interval == pytest.approx((0.26, 0.5))  # resampled, so not beyond
    assert sft.reward.seeds == (Estimate(pytest.approx(0.84)),)


def test_a_rate_over_seeds_has_the_interval_of_their_clustered_answers() -> None:
    rewards = [[1, 1, 0.2, 1, 0.2, 1], [1, 0.2, 0.2, 1, 1, 1]]
    base, sft = compare(
        [run(policy, seed, rewards[seed]) for policy in ("base", "sft") for seed in (0, 1)], 100
    )
    answers = (np.array(rewards) == 1).astype(float)
    assert sft.accuracy.interval == rate_interval(answers, 0.95)
    assert sft.accuracy.seeds[1].interval == pytest.approx(jeffreys(4, 6, 0.95))
    assert base.accuracy.interval == pytest.approx(jeffreys(4, 6, 0.95))  # evaluated once


def test_a_policy_that_chooses_the_same_with_more_certainty_has_a_higher_expected_reward_only() -> (
    None
):
    sft = run("sft", 0, [1.0, 0.2, 1.0])
    surer = Run(
        "exact",
        0,
        [row | {"expected_reward": row["expected_reward"] + 0.1} for row in sft.predictions],
    )
    _, exact = compare([sft, surer], 100)
    assert exact.reward_change is not None and exact.expected_reward_change is not None
    assert exact.reward_change.value == 0
    assert exact.expected_reward_change.value == pytest.approx(0.1)
    assert exact.expected_reward_change.interval == pytest.approx((0.1, 0.1))


def test_what_changes_and_is_tested_is_the_reward_and_the_expected_reward_apart() -> None:
    sft = [run("sft", seed, [0.2] * 30) for seed in (0, 1, 2)]
    surer = [
        Run("grpo", one.seed, [row | {"expected_reward": 0.3} for row in one.predictions])
        for one in sft
    ]
    better = [run("ppo", seed, [0.5] * 30) for seed in (0, 1, 2)]
    _, grpo, ppo = results = compare([*sft, *surer, *better], 100)
    assert grpo.reward_p == 1.0
    assert grpo.expected_reward_p is not None and grpo.expected_reward_p < 0.001
    assert ppo.reward_p is not None and ppo.reward_p < 0.001
    table = markdown(results, {}, 30)
    assert "| 1.000 | 0.300 ± 0.000 | +0.200 ± 0.000 [+0.200, +0.200] | < 0.001 |" in table
    values = {(row["policy"], row["metric"]): row["value"] for row in tidy_rows(results, {}, 30)}
    assert float(values["grpo", "reward_change_p"]) == 1.0
    assert float(values["grpo", "expected_reward_change_p"]) < 0.001


def test_the_one_evaluation_of_the_base_has_no_spread_and_no_other_seeds() -> None:
    runs = [run(policy, seed, [0.2, 1.0, 0.2]) for policy in ("base", "sft") for seed in (0, 1)]
    base, sft = results = compare(runs, 50)
    assert base.accuracy.spread is None
    assert [seed.value for seed in base.accuracy.seeds] == pytest.approx([1 / 3])
    assert sft.accuracy.spread == 0
    assert (len(base.chosen["gold"].seeds), len(sft.chosen["gold"].seeds)) == (1, 2)
    assert base.reward_change is not None and len(base.reward_change.seeds) == 2  # SFT's
    keys = {
        (row["policy"], row["seed"])
        for row in tidy_rows(results, {}, 3)
        if row["metric"] == "reward"
    }
    assert keys == {("base", "mean"), ("base", "0"), ("sft", "mean"), ("sft", "0"), ("sft", "1")}


def test_without_sft_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(UserError, match="compare needs sft"):
        compare([run("ppo", 0, [1.0])], 10)


# ------------------------------------------------------------------------------ what is read


def test_only_the_instances_named_in_params_are_read(tmp_path: Path) -> None:
    for policy, seed in (("sft", 0), ("ppo", 0), ("sft", 1), ("dpo", 0)):
        save(tmp_path, policy, seed, [1.0, 0.2])
    runs = load_runs(tmp_path, ["sft", "ppo"], [0])
    assert [(one.policy, one.seed, len(one.predictions)) for one in runs] == [
        ("sft", 0, 2),
        ("ppo", 0, 2),
    ]


def test_a_missing_instance_is_named(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0])
    with pytest.raises(UserError, match=r"ppo-0/predictions.jsonl: missing"):
        load_runs(tmp_path, ["sft", "ppo"], [0])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"prompt": "other"}, "prompt hash"),
        ({"evaluator": "other"}, "evaluator"),
        ({"params": {"evaluate": {"bootstrap": 20}}}, "params"),
        ({"inputs": {"models/base": "b", "data/rewards/test.jsonl": "other"}}, "pools"),
        ({"inputs": {"models/base": "c", "data/rewards/test.jsonl": "t"}}, "base model"),
    ],
)
def test_predictions_made_otherwise_are_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    save(tmp_path, "sft", 0, [1.0])
    save(tmp_path, "ppo", 0, [1.0], **changes)
    with pytest.raises(UserError, match=f"ppo-0 and .*sft-0 differ in their {named}"):
        load_runs(tmp_path, ["sft", "ppo"], [0])


def test_other_questions_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0, 0.2])
    save(tmp_path, "ppo", 0, [1.0])
    with pytest.raises(UserError, match=r"ppo-0 has 1 test questions, .*sft-0 has 2"):
        load_runs(tmp_path, ["sft", "ppo"], [0])
    write_jsonl(tmp_path / "ppo-0/predictions.jsonl", [prediction(0, 1.0), prediction(5, 1.0)])
    with pytest.raises(UserError, match=r"ppo-0 has question q5 where .*sft-0 has q1"):
        load_runs(tmp_path, ["sft", "ppo"], [0])


def test_predictions_of_other_code_are_refused(tmp_path: Path) -> None:
    name = "src/posttrain/selector/model.py"
    save(tmp_path, "sft", 0, [1.0], code={name: sha256_file(ROOT / name)})
    save(tmp_path, "ppo", 0, [1.0], code={name: "0" * 64})
    assert len(load_runs(tmp_path, ["sft"], [0])) == 1
    with pytest.raises(UserError, match=f"ppo-0 was made by another {name}"):
        load_runs(tmp_path, ["sft", "ppo"], [0])


def test_a_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "sft", 0, [1.0])
    write_json(tmp_path / "sft-0/manifest.json", {"code": {}, "inputs": {}})
    with pytest.raises(UserError, match="not a manifest of stage evaluate"):
        load_runs(tmp_path, ["sft"], [0])


# ------------------------------------------------------------------------------ what is written


@pytest.fixture
def results() -> list[PolicyResult]:
    generator = np.random.default_rng(3)
    runs = []
    for policy, right in (("sft", 0.6), ("ppo", 0.66), ("grpo", 0.64), ("dpo", 0.55)):
        for seed in range(3):
            rewards = np.where(generator.uniform(size=120) < right, 1.0, 0.2)
            runs.append(run(policy, seed, rewards.tolist()))
    return compare(runs, 300)


def test_metrics_are_flat_and_few(results: list[PolicyResult]) -> None:
    (metrics,) = flat_metrics("selector", results, TRIVIAL).values()
    assert metrics["best_trivial_rule"] == {"accuracy": 0.25}
    assert set(metrics["sft"]) == {"accuracy", "reward", "expected_reward"}
    changes = {"change", "change_low", "change_high", "change_p"}
    assert set(metrics["ppo"]) == set(metrics["sft"]) | changes


def test_the_long_table_has_one_number_per_row(results: list[PolicyResult]) -> None:
    rows = tidy_rows(results, TRIVIAL, 120)
    keys = [(row["policy"], row["seed"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    assert {("ppo", "2", "reward_change"), ("shortest", "", "accuracy")} <= set(keys)
    assert (rows[0]["metric"], float(rows[0]["value"])) == ("questions", 120)
    assert all(row["value"] for row in rows)
    of = dict(zip(keys, rows, strict=True))
    ends = ("low", "low_80", "value", "high_80", "high")
    for key in (
        ("ppo", "mean", "accuracy"),
        ("ppo", "1", "accuracy"),
        ("ppo", "mean", "chosen_gold"),
        ("ppo", "mean", "reward"),
        ("ppo", "mean", "reward_change"),
    ):
        numbers = [float(of[key][end]) for end in ends]
        assert numbers == sorted(set(numbers))
    assert not any(of["ppo", "1", "reward"][end] for end in ends if end != "value")


def test_the_markdown_table_has_every_rule_and_policy(results: list[PolicyResult]) -> None:
    lines = markdown(results, TRIVIAL, 120).splitlines()
    for name in ("rule: shortest", "rule: majority answer", "sft", "ppo", "grpo", "dpo"):
        assert any(line.startswith(f"| {name} |") for line in lines)
    tables = [line for line in lines if line.startswith("| rule") or " ± " in line[1:]]
    assert {line.count("|") for line in tables if line.startswith("|")} == {10}
    assert "means over seeds 0, 1, 2, ± the standard deviation over seeds." in lines[0]
    assert "95 % intervals over questions, Jeffreys' for accuracy (answers of several" in lines[0]
    one = markdown(compare([run("sft", 4, [1, 0.2])], 20), {}, 2)
    assert one.startswith("2 test questions; seed 4. Brackets:") and "±" not in one


def test_plots_have_the_same_bytes_twice(tmp_path: Path, results: list[PolicyResult]) -> None:
    for name in ("a.png", "b.png"):
        plot_comparison(results, TRIVIAL, 120, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_single_seeds_stand_within_the_axes() -> None:
    axes = Figure().subplots()
    seeds = tuple(Estimate(value) for value in (-3.0, 2.0, 1.0))
    _draw(axes, Estimate(0.0, (-0.1, 0.1), (-0.05, 0.05), seeds), 0)
    low, high = axes.get_xlim()
    assert low < -3 and high > 2


def test_the_bar_of_the_narrower_interval_is_the_thicker_one() -> None:
    axes = Figure().subplots()
    _draw(axes, Estimate(0.5, (0.2, 0.8), (0.4, 0.6)), 0)
    outer, inner, _ = axes.lines
    assert (tuple(outer.get_xdata()), tuple(inner.get_xdata())) == ((0.2, 0.8), (0.4, 0.6))
    assert outer.get_linewidth() < inner.get_linewidth()


def test_sft_alone_can_be_plotted(tmp_path: Path) -> None:
    plot_comparison(compare([run("sft", 0, [1, 0.2])], 20), TRIVIAL, 2, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_rewards_are_plotted_for_any_kinds(tmp_path: Path) -> None:
    candidates = [{"kind": "gold", "reward": 1.0}, {"kind": "odd", "reward": 0.3}]
    plot_rewards_by_kind([candidates], tmp_path / "rewards.png")
    assert (tmp_path / "rewards.png").stat().st_size > 1000


def test_the_stage_writes_all_four_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from posttrain.core.params import load_params

    params = load_params(Path(__file__).parent.parent / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for policy in params.compare.policies:
        for seed in params.seeds:
            save(Path("data/evaluate"), policy, seed, [1.0, 0.2, 0.2])
    write_json("metrics/rewards.json", {"shortcuts": {"test": TRIVIAL}})

    main(params)
    assert sorted(os.listdir("plots")) == ["compare.csv", "compare.md", "compare.png"]
    assert set(json.loads(Path("metrics/compare.json").read_text())["selector"]) == {
        "best_trivial_rule",
        *params.compare.policies,
    }
    with Path("plots/compare.csv").open(encoding="utf-8") as file:
        assert {row["policy"] for row in csv.DictReader(file)} >= set(params.compare.policies)
    Path("metrics/rewards.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics/rewards.json: no shortcuts.test"):
        main(params)

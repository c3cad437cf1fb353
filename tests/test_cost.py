"""Claims about cost and the choice between methods: Pareto fronts, stage times, several data sets together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace import ROOT, copy_project, environment, must

from posttrain.core.cost import READ, TIMES, note_cost
from posttrain.core.errors import UserError
from posttrain.core.files import write_json, write_jsonl
from posttrain.core.params import load_params
from posttrain.report import across, cost, experiments
from posttrain.report.compare import Estimate
from posttrain.report.pareto import dominated

FIGURES = st.lists(st.integers(0, 3).map(float), min_size=2, max_size=2)


def test_a_point_is_dominated_by_one_as_good_everywhere_and_better_somewhere() -> None:
    points = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.5, 0.0], "d": [1.0, 0.0], "e": [0.0, 0.0]}
    assert dominated(points) == {"c": "a", "e": "a"}
    with pytest.raises(ValueError, match="same number"):
        dominated({"a": [1.0], "b": [1.0, 2.0]})


@given(st.dictionaries(st.sampled_from("abcdefgh"), FIGURES))
def test_whoever_dominates_is_on_the_front_and_equals_stay(points: dict[str, list[float]]) -> None:
    beaten = dominated(points)
    for name, best in beaten.items():
        assert best not in beaten
        assert all(x >= y for x, y in zip(points[best], points[name], strict=True))
    for one in points:
        for other in points:
            if points[one] == points[other]:
                assert (one in beaten) == (other in beaten)


# ------------------------------------------------------------------------------ stage times


def line(stage: str, *arguments: str, seconds: float, **changes: Any) -> dict[str, Any]:
    given = {"dataset": "sample", "model": "pocket", "peak_mib": 100, "tokens": 10**6}
    return {"stage": stage, "arguments": list(arguments), "seconds": seconds, **given, **changes}


def cells(table: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell."""
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {first: rest for first, *rest in rows}


TIMED = [
    line("fetch", seconds=1),
    line("selector_sft", "0", seconds=99),  # run again below
    line("selector_sft", "0", seconds=10),
    line("selector_sft", "1", seconds=20, peak_mib=300, tokens=2 * 10**6),
    line("selector_rl", "ppo", "0", seconds=30),
    line("selector_rl", "ppo", "1", seconds=50),
    line("selector_rl", "dpo", "0", seconds=5),
    line("selector_rl", "ppo", "7", seconds=999),  # a seed of an earlier params.yaml
    line("fetch", seconds=7, dataset="finqa"),
]
SEEDS = [0, 1]


def test_a_stage_counts_as_last_run_on_this_data_set_and_model() -> None:
    table = cost.stage_table(cost.last_times(TIMED, "sample", "pocket", SEEDS))
    assert cells(table)["selector_sft"] == ["2", "30.0", "26%", "300", "3.00"]
    assert cells(table)["all"] == ["6", "116.0", "", "", "7.00"]


def test_lines_of_earlier_versions_have_no_tokens() -> None:
    (old,) = cost.last_times(
        [{"stage": "fetch", "arguments": [], "dataset": "a", "model": "b"}], "a", "b", []
    )
    assert old["tokens"] == 0


def test_a_policy_is_dominated_only_if_its_samples_earn_no_more_either() -> None:
    def reached(accuracy: float, expected_reward: float, seconds: float) -> cost.PolicyCost:
        estimates = (cost.Estimate(value, None) for value in (accuracy, expected_reward))
        return cost.PolicyCost(*estimates, seconds, 100, 5e6)

    costs = {
        "sft": reached(0.8, 0.5, 10.0),
        "ppo": reached(0.8, 0.6, 30.0),
        "grpo": reached(0.8, 0.6, 20.0),
        "dpo": reached(0.7, 0.5, 20.0),
    }
    worse = cost.dominated_policies(costs)
    assert worse == {"ppo": "grpo", "dpo": "sft"}
    shown = cells(cost.policy_table(costs, worse))
    assert shown["PPO"] == ["80.0", "60.0", "30.0", "5.00", "100", "GRPO"]
    said = "not dominated in accuracy, expected reward and time"
    assert cost.finding(costs, worse) == f"SFT and GRPO are {said}"
    assert cost.finding(costs, dict.fromkeys(["sft", "ppo", "dpo"], "grpo")) == f"GRPO is {said}"
    assert cost.finding(costs, {}) == "no policy is dominated in accuracy, expected reward and time"


def test_a_policy_costs_its_own_training_and_that_of_sft_per_seed() -> None:
    times = cost.last_times(TIMED, "sample", "pocket", SEEDS)
    assert cost.training(times, "selector", "ppo") == (15 + 40, 300, 2.5e6)
    assert cost.training(times, "selector", "sft") == (15, 300, 1.5e6)
    assert cost.training(times, "selector", "grpo") is None
    assert cost.training(times, "generator", "sft") is None


def test_a_policy_that_took_longer_for_no_more_accuracy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_project(tmp_path, {"seeds": SEEDS})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"logs/times\.jsonl: missing: no stage has run in this f"):
        cost.main()
    rows = ["policy,seed,metric,value,low,high,low_80,high_80,spread,p"]
    rows.append("blind:shortest,,accuracy,0.95,,,,,,")
    for name, accuracy in {"base": 0.1, "sft": 0.6, "ppo": 0.6, "dpo": 0.7, "grpo": 0.9}.items():
        rows.append(f"{name},mean,accuracy,{accuracy},{accuracy - 0.1:.2f},1,{accuracy},0.99,,")
        rows.append(f"{name},0,accuracy,0.99,,,,,,")
        rows.append(f"{name},mean,expected_reward,0.5,0.4,0.6,0.45,0.55,,")
    Path("plots/compare").mkdir(parents=True)
    Path("plots/compare/selector.csv").write_text("\n".join(rows))
    write_jsonl(TIMES, TIMED)
    cost.main()
    told = capsys.readouterr().out.split("selector:")[1].strip()
    table = cells(told)
    assert "\nDominated by: a policy with at least this accuracy and expected reward, " in told
    assert "\nNo row for GRPO: their models are not here, or were not trained here; " in told
    ends = {name: table[name][-1] for name in ("base", "SFT", "PPO", "DPO")}
    assert ends == {"base": "", "SFT": "", "PPO": "SFT", "DPO": ""} and "GRPO" not in table
    assert table["DPO"][:3] == ["70.0 [60.0, 100.0]", "50.0 [40.0, 60.0]", "20.0"]
    assert Path("logs/cost-selector.png").read_bytes().startswith(b"\x89PNG")
    compared = [line("compare", "selector", seconds=1, dataset="finqa")]
    write_jsonl(TIMES, [*TIMED, *compared, line("compare", "generator", seconds=1)])
    with pytest.raises(
        UserError, match=r"selector\.csv is of pocket on finqa; run dvc repro compare"
    ):
        cost.main()


def test_what_a_model_cost_is_that_of_the_run_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a short experiment and the way back, the long run counts; so does one of a queued experiment."""
    monkeypatch.chdir(tmp_path)
    params, model = load_params(ROOT / "params.yaml"), tmp_path / "models/selector/ppo/0/head"
    model.parent.mkdir(parents=True)

    def seconds() -> tuple[float, int, float] | None:
        lines = cost.of_present_models(map(json.loads, TIMES.read_text().splitlines()))
        return cost.training(cost.last_times(lines, "sample", "pocket", [0]), "selector", "ppo")

    monkeypatch.setattr("posttrain.core.cost.READ", {"tokens": 0})
    (tmp_path / "models/selector/sft/0").mkdir(parents=True)
    note_cost(params, "selector_sft", ["0"], 1.0)
    for content, time in (("long", 60.0), ("short", 2.0)):
        model.write_text(content)
        note_cost(params, "selector_rl", ["ppo", "0"], time)
    assert (seconds() or [0])[0] == 3.0
    model.write_text("long")
    assert (seconds() or [0])[0] == 61.0
    model.write_text("of another machine")
    assert seconds() is None

    copy = tmp_path / ".dvc/tmp/exps/tmp0"
    shutil.copytree(tmp_path / "models", copy / "models")
    monkeypatch.chdir(copy)
    note_cost(params, "selector_rl", ["ppo", "0"], 30.0)
    note_cost(params, "compare", ["selector"], 30.0)
    monkeypatch.chdir(tmp_path)
    assert (seconds() or [0])[0] == 31.0
    assert "compare" not in TIMES.read_text()


def test_a_stage_notes_its_time_and_memory_once_over_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(READ, "tokens", 7)
    params = load_params(ROOT / "params.yaml")
    note_cost(params, "selector_rl", ["ppo", "0"], 1.234)
    monkeypatch.setattr("posttrain.core.cost.RANK", 1)
    note_cost(params, "selector_rl", ["ppo", "0"], 5.0)
    (noted,) = map(json.loads, TIMES.read_text().splitlines())
    peak = noted.pop("peak_mib")
    assert noted == {
        "stage": "selector_rl", "arguments": ["ppo", "0"], "dataset": "sample", "model": "pocket",
        "seconds": 1.23, "tokens": 7,
    }  # fmt: skip
    assert 50 < peak < 100_000


STAGE = """
import torch
from posttrain.core.stage import run


def main(params):
    tiny = torch.full((2**20,), 1e-30) * 1e-10
    print(torch.get_num_threads(), "threads", int(tiny.count_nonzero()), "left")


run(main)
"""


@pytest.mark.slow
def test_no_thread_of_a_stage_spends_time_on_denormal_numbers(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "probe.py").write_text(STAGE)
    for name in ("probe", "files.json"):
        write_json(tmp_path / "data/code" / name, {})
    two = {**environment(ROOT), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "probe.py"]
    done = subprocess.run(command, cwd=tmp_path, env=two, text=True, capture_output=True)
    assert done.stdout == "2 threads 0 left\n", done.stderr


# ------------------------------------------------------------------------------ several data sets

CSV = """policy,seed,metric,value,low,high,low_80,high_80,spread,p
,,questions,{questions},,,,,,
blind:shortest,,accuracy,0.3,,,,,,
sft,mean,accuracy,{sft},0,1,0.1,0.9,,
sft,0,accuracy,0.1,,,,,,
ppo,mean,accuracy,{ppo},0,1,0.1,0.9,,
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose branch `other` compared the policies on another data set."""
    monkeypatch.chdir(tmp_path)
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["git", "checkout", "-qb", "other"],
    ):
        must(tmp_path, *command)
    (tmp_path / "plots/compare").mkdir(parents=True)
    for dataset, figures in (
        ("finqa", {"questions": 300, "sft": 0.5, "ppo": 0.6}),
        ("sample", {"questions": 100, "sft": 0.9, "ppo": 0.8}),
    ):
        (tmp_path / "params.yaml").write_text(f"dataset: {dataset}\n")
        (tmp_path / "plots/compare/selector.csv").write_text(CSV.format(**figures))
        if dataset == "finqa":
            author = ["-c", "user.name=a", "-c", "user.email=a@b"]
            must(tmp_path, "git", "add", ".")
            subprocess.run(["git", *author, "commit", "-qm", "x"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.slow
def test_accuracies_of_data_sets_are_weighted_by_their_questions(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    across.main(["other", "."])
    table = cells(capsys.readouterr().out)
    heads = ["finqa (other), 300 questions", "sample (.), 100 questions", "all", "by weight"]
    assert table["right answers, % [95 %]"] == heads
    assert [cell.split()[0] for cell in table["SFT"]] == ["50.0", "90.0", "60.0", "70.0"]
    assert [cell.split()[0] for cell in table["PPO"]] == ["60.0", "80.0", "65.0", "70.0"]
    across.main(["other"])
    told = capsys.readouterr().out
    assert "as measured, the Pareto front is PPO; SFT (by PPO) is dominated." in told
    assert "no policy is dominated by another." in told  # both intervals are [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["policy,seed\nsft,mean\n", "not a table", CSV.format(questions="many", sft=1, ppo=1)]
)
def test_a_file_that_is_no_comparison_is_named(project: Path, text: str) -> None:
    (project / "plots/compare/selector.csv").write_text(text)
    with pytest.raises(UserError, match=r"sample \(\.\): plots/compare/selector\.csv "):
        across.main(["."])


def test_estimates_are_read_from_a_comparison_only(tmp_path: Path) -> None:
    path = tmp_path / "compare.csv"
    path.write_text("policy,seed\nsft,mean\n")
    with pytest.raises(UserError, match=r"compare\.csv: not a comparison's table: 'low'"):
        cost.read_estimates(str(path))
    path.write_text(CSV.format(questions=10, sft=0.5, ppo=0.6))
    estimates = cost.read_estimates(str(path))
    assert estimates == {
        "sft": {"accuracy": Estimate(0.5, (0, 1), (0.1, 0.9))},
        "ppo": {"accuracy": Estimate(0.6, (0, 1), (0.1, 0.9))},
    }


@pytest.mark.slow
def test_a_revision_without_a_comparison_is_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no plots/compare/selector\.csv there"):
        across.main(["nowhere"])
    with pytest.raises(UserError, match=r"other: no plots/compare/generator\.csv there"):
        across.main(["--generator", "other"])


@pytest.mark.slow
def test_what_cannot_be_put_together_is_refused(project: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        across.main(["other", "other"])
    Path("plots/compare/selector.csv").write_text(
        Path("plots/compare/selector.csv").read_text().replace("sft", "a").replace("ppo", "b")
    )
    with pytest.raises(UserError, match="no policy that all of them compare"):
        across.main(["other", "."])


# ------------------------------------------------------------------------------ experiments


LOCK = """
schema: '2.0'
stages:
  pools:
    outs: [{path: data/pools, md5: new.dir}]
  selector_evaluate@sft-0:
    deps: [{path: data/pools, md5: POOLS.dir}, {path: models/selector/sft/0, md5: a.dir}]
    outs: [{path: data/selector_evaluate/sft/0, md5: b.dir}]
  compare@selector:
    deps: [{path: data/selector_evaluate, md5: c.dir}]
"""


def test_a_comparison_that_is_older_than_what_it_stands_on_is_out_of_step() -> None:
    late = experiments.out_of_step(LOCK.replace("POOLS", "old"), "compare@selector")
    assert late == "selector_evaluate@sft-0"
    assert experiments.out_of_step(LOCK.replace("POOLS", "new"), "compare@selector") is None


@pytest.mark.slow
def test_an_experiment_that_ended_before_its_comparison_has_no_numbers(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its table is that of the commit that it began from."""
    Path("plots/compare").mkdir(parents=True, exist_ok=True)
    Path("plots/compare/selector.csv").write_text("policy,seed,metric,value\nsft,mean,accuracy,0.7")
    Path("dvc.lock").write_text(LOCK.replace("POOLS", "new"))
    must(project, "git", "add", "-f", ".")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    Path("dvc.lock").write_text(LOCK.replace("POOLS", "old"))
    experiments.main([])
    told = capsys.readouterr().out
    assert cells(told)["SFT"] == ["", "70.0"]
    assert "workspace: not compared, as selector_evaluate@sft-0 has not run on what was" in told


@pytest.mark.slow
def test_policies_are_tabulated_over_experiments(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def save(**accuracy: float) -> None:
        rows = ["policy,seed,metric,value", "blind:longest,,accuracy,0.1"]
        for name, value in accuracy.items():
            rows += [f"{name},mean,accuracy,{value}", f"{name},0,accuracy,0.3"]
            rows.append(f"{name},mean,expected_reward,0.5")
        Path("plots/compare/selector.csv").write_text("\n".join(rows))

    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    save(sft=0.7, ppo=0.8)
    must(project, "git", "add", ".")
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    must(project, "git", "update-ref", "refs/exps/12/3456/brave-mole", "HEAD")
    must(project, "git", "update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    save(sft=0.75, ppo=0.7, dpo=0.9)
    experiments.main([])
    table = cells(capsys.readouterr().out)
    assert table["accuracy %"] == ["workspace", "HEAD", "brave-mole"]
    assert table["PPO"] == ["70.0", "80.0", "80.0"] and table["DPO"] == ["90.0", "", ""]
    order = [name for name in table if not name.startswith("-")]
    assert order == ["accuracy %", "SFT", "PPO", "DPO"]  # as in the comparison
    experiments.main(["selector", "expected_reward"])
    assert cells(capsys.readouterr().out)["SFT"] == ["50.0"] * 3
    with pytest.raises(UserError, match=r"no comparison has a measure 'luck'$"):
        experiments.main(["selector", "luck"])
    with pytest.raises(UserError, match="'acuracy'; did you mean 'accuracy'"):
        experiments.main(["selector", "acuracy"])
    with pytest.raises(UserError, match="'generatr': expected selector or generator; did you"):
        experiments.main(["generatr"])
    with pytest.raises(
        UserError, match=r"plots/compare/generator\.csv: neither here nor in an exp"
    ):
        experiments.main(["generator"])

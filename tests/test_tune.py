"""`posttrain.tune`: a stated budget, chosen on validation alone; and what stage compare says of it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from stages.inputs import main as look
from toys import PARAMS, ROOT, settings
from workspace import TINY, copy_project, must, set_params, start

from posttrain import tune
from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file
from posttrain.core.methods import check_methods, grid
from posttrain.core.params import load_params
from posttrain.report.effort import COPY, effort_of, effort_table, read_effort
from posttrain.report.tuned import RECORD, Tried, best, differs, read_tuned
from posttrain.tune import About

RATES = [0.0001, 0.0003, 0.001]
RESULTS = {0.0001: [0.90, 0.91], 0.0003: [0.95, 0.92], 0.001: [0.92, 0.93]}


def tuned(**changes: Any) -> dict[str, Any]:
    """The record of the selector's RLOO, finished and in use."""
    own = settings("selector", "rloo").model_dump()
    entry = {
        "split": "val",
        "dataset": PARAMS.dataset,
        "model": PARAMS.model,
        "questions": 250,
        "questions_sha256": "ab",
        "measure": "reward",
        "seeds": [100, 101],
        "settings": {k: v for k, v in own.items() if k not in ("learning_rate", "evaluation_questions")},
        "made_of": "cd",
        "budget": 6,
        "tried": [{"values": {"learning_rate": rate}, "by_seed": RESULTS[rate]} for rate in RATES],
        "chosen": {"learning_rate": 0.0003},
    }  # fmt: skip
    return {"selector": {"rloo": {**entry, **changes}}}


def row_of(table: str, name: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(f"| {name} "))


# ------------------------------------------------------------------------------ what a record says


def test_the_choice_has_the_best_mean_and_of_equals_is_the_smaller_value() -> None:
    def tried(rate: float, *by_seed: float, failed: str | None = None) -> Tried:
        return Tried(values={"learning_rate": rate}, by_seed=list(by_seed), failed=failed)

    rows = [tried(0.001, 0.3, 0.1), tried(0.0003, 0.1, 0.1 + 0.2), tried(0.0001, 0.0, 0.39)]
    assert best(rows) == best(rows[::-1]) == {"learning_rate": 0.0003}
    assert best([rows[0], tried(0.01, failed="step 1: loss is nan")]) == {"learning_rate": 0.001}
    assert best([tried(0.01, failed="step 1: loss is nan")]) is None


def test_a_finished_tuning_is_named_with_its_budget_in_the_table() -> None:
    table = effort_table(PARAMS, "selector", tuned(), "ab")
    assert "best of 3 on 250 validation questions, 2 seeds" in row_of(table, "RLOO")
    assert "not tuned" in row_of(table, "PPO")
    assert "Values tried differ: none, but 3 for RLOO." in table


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"split": "test"}, "selector.rloo.split: 'test' is not one of 'val'"),
        ({"chosen": {"learning_rate": 0.001}}, "selector.rloo: learning_rate=0.001 is chosen, but the best by its own results is learning_rate=0.0003"),
        ({"chosen": {"learning_rate": 0.002}}, "selector.rloo: learning_rate=0.002 is chosen, but the best"),
        ({"seeds": [100, 101, 102], "budget": 9}, "selector.rloo: learning_rate=0.0001 has 2 results for 3 seeds"),
        ({"budget": 12}, "selector.rloo: learning_rate=0.0003 is chosen, but 12 trainings were to be compared and 6 are there"),
        ({"tried": 3}, "selector.rloo.tried: "),
        ({"best": 3}, "selector.rloo.best: unknown parameter"),
    ],
)  # fmt: skip
def test_a_record_of_test_questions_or_with_another_winner_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        effort_table(PARAMS, "selector", tuned(**changes), "ab")
    message = str(caught.value)
    assert message.startswith(f"metrics/tuning.json: {expected}") and "\n" not in message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dataset": "finqa"}, "tuned for dataset finqa"),
        ({"model": "qwen3-0-6b"}, "tuned for model qwen3-0-6b"),
        ({"questions_sha256": "ef"}, "tuned on other validation questions"),
        ({"settings": {**tuned()["selector"]["rloo"]["settings"], "steps": 99}}, "tuned with steps 99"),
        ({"settings": {}}, "tuned with warmup (none)"),
        ({"tried": tuned()["selector"]["rloo"]["tried"][:1], "chosen": None}, "its tuning has no result"),
    ],
)  # fmt: skip
def test_a_tuning_of_something_else_is_no_tuning(changes: dict[str, Any], why: str) -> None:
    row = row_of(effort_table(PARAMS, "selector", tuned(**changes), "ab"), "RLOO")
    assert f"not tuned ({why})" in row


def test_a_value_that_validation_did_not_choose_is_not_tuned() -> None:
    entry = read_tuned(tuned(), "selector", "rloo")
    mine = settings("selector", "rloo", learning_rate=0.0002).model_dump()
    run = {"dataset": PARAMS.dataset, "model": PARAMS.model, "questions_sha256": "ab"}
    assert differs(entry, **run, settings=mine) == "validation chose learning_rate 0.0003"
    assert differs(entry, **run, settings={**mine, "learning_rate": 0.0003}) is None


def test_a_run_without_a_record_has_an_empty_one_and_a_broken_record_is_named(
    project: Path,
) -> None:
    """DVC needs what a stage depends on to be there, so stage inputs writes a copy."""
    params = load_params()
    set_params(project, {"models.pocket.name": str(ROOT / "pretrain/pocket")})
    look(load_params())
    assert json.loads(COPY.read_text()) == {}
    Path("data/pools").mkdir()
    Path("data/pools/val.jsonl").write_text("{}\n")
    assert "not tuned" in row_of(read_effort(params, "selector"), "RLOO")
    RECORD.parent.mkdir()
    RECORD.write_text(json.dumps(tuned(questions_sha256=sha256_file("data/pools/val.jsonl"))))
    look(load_params())
    assert "best of 3" in row_of(read_effort(params, "selector"), "RLOO")
    RECORD.write_text("{")
    with pytest.raises(UserError, match=r"^metrics/tuning\.json:1:2: not valid JSON"):
        look(load_params())


# ------------------------------------------------------------------------------ the table of effort


def test_by_default_all_methods_of_a_family_get_the_same_steps() -> None:
    selector, generator = (
        {
            name: effort_of(family, settings(family, name).model_dump())
            for name in ("ppo", "grpo", "rloo", "dpo")
        }
        for family in ("selector", "generator")
    )
    assert len({str(effort) for effort in selector.values()}) == 1
    assert len({effort["steps"] for effort in generator.values()}) == 1
    assert generator["grpo"]["optimizer steps"] == generator["dpo"]["optimizer steps"] == 32
    assert generator["grpo"]["samples"] == generator["ppo"]["samples"]


def test_what_differs_is_said_and_follows_the_settings() -> None:
    values = PARAMS.model_dump()
    values["selector"]["rloo"] = {**values["selector"]["rloo"], "samples": 4, "steps": 24}
    table = effort_table(type(PARAMS).model_validate(values), "selector", {}, "")
    assert "Steps differ: 12, but 24 for RLOO." in table
    assert "Optimizer steps differ: 24, but 96 for SFT+, 48 for RLOO." in table
    assert "GRPO divides by the group's deviation (scale_rewards: group)" in table
    values["selector"]["grpo"] = {**values["selector"]["grpo"], "scale_rewards": "none"}
    table = effort_table(type(PARAMS).model_validate(values), "selector", {}, "")
    assert "GRPO divides" not in table
    assert "its pairs come from the pool" in table
    assert "its pairs come from the samples" in effort_table(PARAMS, "generator", {}, "")


# ------------------------------------------------------------------------------ running the grid


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, and trainings whose results are `RESULTS`."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(count: int = 99) -> Any:
    """A stand-in for `tune.run` that is killed at training `count`."""
    calls: list[tuple[str, float]] = []

    def run(method: tune.Method, values: dict[str, Any]) -> tuple[Tried, About]:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append((method.name, values["learning_rate"]))
        results = RESULTS[values["learning_rate"]]
        return Tried(values=values, by_seed=results), About(250, "ab", "reward")

    run.calls = calls  # type: ignore[attr-defined]
    return run


def test_each_value_is_recorded_the_budget_told_and_the_best_chosen_and_set(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "run", trained())
    set_params(project, {"selector.rloo.learning_rate": 0.5})
    tune.main(["selector", "rloo", "--write"])
    told = capsys.readouterr().out
    assert "selector: 1 methods (rloo) x 3 values x 2 seeds = 6 trainings" in told
    entry = read_tuned(json.loads(RECORD.read_text()), "selector", "rloo")
    assert entry is not None and entry.chosen == {"learning_rate": 0.0003}
    assert [row.by_seed for row in entry.tried] == [RESULTS[rate] for rate in RATES]
    assert "selector.rloo.learning_rate=0.0003" in told.splitlines()[-1]
    text = (project / "params.yaml").read_text()
    assert text == (ROOT / "params.yaml").read_text()
    table = effort_table(load_params(), "selector", json.loads(RECORD.read_text()), "ab")
    assert "best of 3 on 250" in row_of(table, "RLOO")


def test_a_killed_tuning_goes_on_where_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = trained(2), trained(), trained()
    monkeypatch.setattr(tune, "run", first)
    with pytest.raises(KeyboardInterrupt):
        tune.main(["selector", "rloo"])
    assert json.loads(RECORD.read_text())["selector"]["rloo"]["chosen"] is None
    monkeypatch.setattr(tune, "run", second)
    tune.main(["selector", "rloo"])
    assert [*first.calls, *second.calls] == [("rloo", rate) for rate in RATES]
    set_params(project, {"pools.oversample": 3})  # other data: nothing that is recorded counts
    monkeypatch.setattr(tune, "run", third)
    tune.main(["selector", "rloo"])
    assert third.calls == [("rloo", rate) for rate in RATES]


def test_results_on_other_questions_are_not_mixed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set's folder may have changed between two trainings, which no setting tells."""
    params = load_params()
    method = tune.prepare(params, "selector", "rloo")
    first, second, _ = (Tried(values=v, by_seed=RESULTS[v["learning_rate"]]) for v in method.grid)
    tune.note(params, method, first, About(250, "ab", "reward"))
    with pytest.raises(UserError, match="its other results are of other validation questions"):
        tune.note(params, method, second, About(250, "ef", "reward"))


def test_results_are_read_from_the_models_and_the_validation_questions_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [Path(f"models/selector/rloo/{seed}") for seed in (100, 101)]
    for folder, reward in zip(folders, (0.25, 0.5), strict=True):
        folder.mkdir(parents=True)
        meta = {"best_step": 16.0, "val_reward": reward}
        (folder / "selector.json").write_text(json.dumps({"meta": meta}))
    Path("data/pools").mkdir(parents=True)
    Path("data/pools/val.jsonl").write_text("{}\n{}\n")
    Path("data/pools/test.jsonl").mkdir()  # cannot be read

    class Files:
        def __init__(self, rev: str) -> None:
            assert rev == "tune"

        def exists(self, path: str) -> bool:
            return Path(path).exists()

        def read_text(self, path: str) -> str:
            return Path(path).read_text()

        def read_bytes(self, path: str) -> bytes:
            return Path(path).read_bytes()

    monkeypatch.setattr("dvc.api.DVCFileSystem", Files)
    method = tune.prepare(load_params(), "selector", "rloo")
    tried, about = tune.read_results(method, method.grid[0], "tune")
    assert tried.by_seed == [0.25, 0.5] and tried.failed is None
    assert about == About(2, sha256_file("data/pools/val.jsonl"), "reward")
    (folders[1] / "not_trained.json").write_text(json.dumps({"reason": "no pairs"}))
    tried, _ = tune.read_results(method, method.grid[0], "tune")
    assert tried.failed == "not trained: no pairs"


def test_a_training_that_diverges_is_a_result_and_any_other_failure_ends_the_tuning(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tune.prepare(load_params(), "selector", "rloo")
    monkeypatch.setattr(tune, "remove", lambda name: None)
    diverged = "selector_rl@rloo-100: step 3: loss is nan, so the training has diverged; lower learning_rate"
    monkeypatch.setattr(tune, "call", lambda command: diverged)
    tried, _ = tune.run(method, {"learning_rate": 0.0001})
    assert tried.failed == diverged
    monkeypatch.setattr(tune, "call", lambda command: "fetch: no network")
    with pytest.raises(UserError, match=r"learning_rate=0\.0001: fetch: no network"):
        tune.run(method, {"learning_rate": 0.0001})


def test_dvc_is_asked_for_the_trainings_of_one_method_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(tune, "remove", lambda name: None)
    monkeypatch.setattr(tune, "call", lambda command: asked.append(command) or tune.DIVERGED)
    tune.run(tune.prepare(load_params(), "generator", "dpo"), {"learning_rate": 0.0001})
    (command,) = asked
    assert command[:4] == ["dvc", "exp", "run", "--temp"]
    assert command[-2:] == ["generator_rl@dpo-100", "generator_rl@dpo-101"]
    assert "generator.dpo.learning_rate=0.0001" in command
    assert f"+generator.dpo.evaluation_questions={tune.ALL}" in command
    assert not any("test" in word or "evaluate" in word for word in command[4:])


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Running stage 'a':\na@x-1: step 2: loss is nan, so the training has diverged; lower learning_rate\nERROR: failed to reproduce 'a@x-1'", "a@x-1: step 2: loss is nan, so the training has diverged; lower learning_rate"),
        ("fetch: no such file\nERROR: failed to reproduce 'fetch'", "fetch: no such file"),
        ("ERROR: Key 'x' is not in struct", "ERROR: Key 'x' is not in struct"),
        ("", "sh ended with status 3"),
    ],
)  # fmt: skip
def test_the_line_that_says_why_is_found(log: str, line: str, project: Path) -> None:
    Path("text").write_text(log)
    assert tune.call(["sh", "-c", "cat text; exit 3"]) == line
    assert tune.call(["sh", "-c", "cat text"]) is None


def test_a_method_without_a_record_of_its_own_seeds_starts_anew(project: Path) -> None:
    params = load_params()
    first = tune.prepare(params, "selector", "rloo")
    set_params(project, {"tuning.seeds": [102, 103]})
    assert tune.prepare(load_params(), "selector", "rloo").made_of != first.made_of
    set_params(project, {"tuning.seeds": [100, 101], "datasets.sample.test": 7})
    assert tune.prepare(load_params(), "selector", "rloo").made_of == first.made_of


# ------------------------------------------------------------------------------ params.yaml


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tuning.seeds", [0, 100], "tuning.seeds: 0 is one of `seeds` as well"),
        ("tuning.seeds", [100, 100], "tuning.seeds: an entry is listed twice"),
        ("tuning.selector.learning_rate", [0.1, 0.1], "tuning.selector.learning_rate: a value is listed twice"),
        ("tuning.selector.learning_rate", [], "tuning.selector.learning_rate: expected a list of values"),
        ("tuning.selector.learning_rate", [-1.0], "tuning.selector.learning_rate: Input should be greater than 0"),
        ("tuning.selector.lerning_rate", [0.1], "tuning.selector.lerning_rate: unknown parameter; did you mean 'learning_rate'?"),
        ("tuning.generator.dpo", {"kl_coef": [0.1]}, "tuning.generator.dpo.kl_coef: unknown parameter"),
        ("tuning.generator.dpo", 3, "tuning.generator.dpo: expected settings with lists of values"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_grid_is_one_line(
    key: str, value: Any, expected: str, project: Path
) -> None:
    set_params(project, {key: value})
    with pytest.raises(UserError) as caught:
        check_methods(load_params())
    message = str(caught.value)
    assert message.startswith(f"params.yaml: {expected}") and "\n" not in message


def test_a_method_may_have_values_of_its_own_and_a_setting_that_others_lack(project: Path) -> None:
    set_params(project, {"tuning.selector.dpo": {"learning_rate": [0.01], "beta": [0.1, 0.2]}})
    set_params(project, {"tuning.selector.kl_coef": [0.01, 0.05]})
    params = load_params()
    check_methods(params)
    assert [*map(str, grid(params, "selector", "dpo"))] == [
        str({"learning_rate": 0.01, "beta": beta}) for beta in (0.1, 0.2)
    ]
    assert len(grid(params, "selector", "rloo")) == 6


# ------------------------------------------------------------------------------ with DVC

SPY = """
import os, sys
def spy(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".jsonl") and sys.argv[0][-3:] != "dvc":
        with os.fdopen(os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file:
            file.write(f"{{os.environ.get('DVC_STAGE', '')}} {{arguments[0]}}\\n")
sys.addaudithook(spy)
"""
MAKERS = ("code", "inputs", "fetch", "audit", "examples", "pools")  # stages that write all splits


@pytest.mark.slow
def test_a_tuning_trains_without_the_test_questions_and_goes_on_after_a_kill(
    tmp_path: Path,
) -> None:
    """One method, killed while its SFT trains. The files that all stages and the tuner open are noted."""
    project = copy_project(tmp_path / "project", TINY)
    set_params(project, {"tuning.seeds": [100], "tuning.selector.learning_rate": [0.001]})
    before = (project / "params.yaml").read_bytes()
    log = tmp_path / "opened"
    (project / "src/sitecustomize.py").write_text(SPY.format(log=str(log)))
    command = ("python", "-m", "posttrain.tune", "selector", "exact")
    killed = start(project, *command)
    while not log.exists() or "selector_sft@100" not in log.read_text():
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.1)
    killed.terminate()
    _, told = killed.communicate()
    assert killed.returncode and told.endswith("interrupted; the same command goes on\n")
    assert "selector.exact.learning_rate=0.001" in must(project, *command)
    entry = read_tuned(json.loads((project / RECORD).read_text()), "selector", "exact")
    assert entry is not None and (entry.split, entry.questions) == ("val", 20)
    assert (project / "params.yaml").read_bytes() == before
    assert must(project, "dvc", "exp", "list") == ""
    opened = [line.split(" ", 1) for line in log.read_text().splitlines()]
    read = {(stage, Path(path).name) for stage, path in opened if stage not in MAKERS}
    assert ("selector_rl@exact-100", "val.jsonl") in read
    assert "test.jsonl" not in {name for _, name in read}

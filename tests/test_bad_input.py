"""A user's mistake ends the stage with one line and leaves nothing half-written.

Here the stages run as commands. Rows rejected by the audit are in test_audit, downloads in test_fetch, programs in
test_finqa_program, mistakes in params.yaml in test_params.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspace import copy_project, must, run, set_params, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its data stages done, by hand."""
    project = copy_project(tmp_path_factory.mktemp("bad") / "project")
    for stage in ("code", "fetch", "audit", "examples", "pools"):
        must(project, "python", f"stages/{stage}.py")
    return project


@pytest.fixture
def project(prepared: Path, tmp_path: Path) -> Path:
    shutil.copytree(prepared, tmp_path / "project", ignore=shutil.ignore_patterns(".git"))
    return tmp_path / "project"


def files(project: Path) -> dict[str, int]:
    """All files but compiled ones, with the time of their last change."""
    return {
        path.relative_to(project).as_posix(): path.stat().st_mtime_ns
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def refused(project: Path, stage: str, *arguments: str, **options: Any) -> str:
    """The one line that the stage ends with; nothing on disk has changed."""
    before = files(project)
    done = run(project, "python", f"stages/{stage}.py", *arguments, **options)
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"{stage}: ")
    assert files(project) == before
    return lines[0].removeprefix(f"{stage}: ")


def edit_rows(path: Path, edit: Callable[[list[Any]], None]) -> None:
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


# ------------------------------------------------------------------------------ params.yaml


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("examples.topn", 5, "examples.topn: unknown parameter; did you mean 'top_n'?"),
        ("examples.top_n", "8", "examples.top_n: '8' is text, not a number; write it without quotes"),
        ("model", "pockett", "model: 'pockett' is not one of models; did you mean 'pocket'?"),
        ("dataset", "samples", "dataset: 'samples' is not one of datasets; did you mean 'sample'?"),
        ("selector.methods", ["ppoo"], "selector.methods: 'ppoo' is not one of dpo, exact, grpo, ppo, rloo, sft_plus; did you mean 'ppo'?"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_stops_a_stage_that_does_not_read_it(
    project: Path, key: str, value: Any, expected: str
) -> None:
    set_params(project, {key: value})
    assert refused(project, "audit") == f"params.yaml: {expected}"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("generator.ppo.gama", 1.0, "generator.ppo.gama: unknown parameter; did you mean 'gamma'?"),
        ("selector.sft.learning_rate", "2e-5", "selector.sft.learning_rate: '2e-5' is text, not a number; write it without quotes"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_of_any_method_stops_the_first_stage(
    project: Path, key: str, value: Any, expected: str
) -> None:
    set_params(project, {key: value})
    assert refused(project, "code") == f"params.yaml: {expected}"


def test_params_that_are_no_yaml_are_named(project: Path) -> None:
    (project / "params.yaml").write_text("dataset: [sample\nmodel: pocket\n")
    assert refused(project, "fetch").startswith("params.yaml: not valid YAML: ")


# ------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        ("selector_rl", ("grop", "0"), "method 'grop': expected one of dpo, exact, grpo, ppo, rloo, sft_plus"),
        ("selector_rl", ("sft", "0"), "method 'sft': expected one of dpo, exact, grpo, ppo, rloo, sft_plus"),
        ("selector_rl", ("dpo", "0"), "data/code/selector_rl/dpo: missing; name dpo in selector.methods and run python stages/code.py"),
        ("selector_rl", ("ppo", "zero"), "seed 'zero': expected a number of 0 or more"),
        ("selector_sft", ("-1",), "seed '-1': expected a number of 0 or more"),
        ("selector_rl", (), "expected 2 arguments, found 0; see the top of stages/selector_rl.py"),
        ("fetch", ("sample",), "expected 0 arguments, found 1; see the top of stages/fetch.py"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(
    project: Path, stage: str, arguments: tuple[str, ...], expected: str
) -> None:
    assert refused(project, stage, *arguments) == expected


# ------------------------------------------------------------------------------ raw data


def test_truncated_json_is_named_with_its_line(project: Path) -> None:
    path = project / "data/fetch/dev.json"
    path.write_text(path.read_text()[:-20])
    assert refused(project, "audit").startswith("data/fetch/dev.json:")


def test_a_missing_field_is_named_with_its_row(project: Path) -> None:
    def edit(rows: list[Any]) -> None:
        del rows[3]["qa"]["question"]

    edit_rows(project / "data/fetch/train.json", edit)
    message = refused(project, "audit")
    assert message.startswith("data/fetch/train.json") and "question" in message and "3" in message


def test_rows_that_cannot_be_used_are_listed_and_left_out(project: Path) -> None:
    """A duplicate id, an unknown operation, a forward reference, a huge power."""
    bad = ["add(1, 2", "power(1, 2)", "add(#1, 2), add(1, 2)", "exp(9, 9999999)"]

    def edit(rows: list[Any]) -> None:
        rows[0]["id"] = rows[1]["id"]
        for row, program in zip(rows[2:], bad, strict=False):
            row["qa"]["program"] = program
        rows[7]["qa"]["program"] = ", ".join(["add(1, 1)"] * 10_000)

    edit_rows(project / "data/fetch/train.json", edit)
    started = time.monotonic()
    must(project, "python", "stages/audit.py")
    assert time.monotonic() - started < 30
    rejected = [
        json.loads(line)
        for line in (project / "data/audit/rejected.jsonl").read_text().splitlines()
    ]
    assert len(rejected) == 2 + len(bad)
    assert all(row["id"] for row in rejected)


def test_an_empty_table_goes_through_every_data_stage(project: Path) -> None:
    """It is a page of text; only programs over rows of the table are rejected."""

    def edit(rows: list[Any]) -> None:
        for row in rows[:10]:
            row["table"] = []

    edit_rows(project / "data/fetch/train.json", edit)
    for stage in ("audit", "examples", "pools"):
        must(project, "python", f"stages/{stage}.py")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "9" * 400])
def test_a_number_that_is_none_does_not_stop_the_audit_and_is_not_written(
    project: Path, number: str
) -> None:
    path = project / "data/fetch/test.json"
    rows = json.loads(path.read_text())
    rows[0]["qa"]["exe_ans"] = "PLACE"
    path.write_text(json.dumps(rows).replace('"PLACE"', number))
    done = run(project, "python", "stages/audit.py")
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert len(done.stderr.splitlines()) == 1 and "test.json" in done.stderr
    else:
        rejected = (project / "data/audit/rejected.jsonl").read_text()
        assert json.dumps(rows[0]["id"]) in rejected


# ------------------------------------------------------------------------------ places


def test_a_stage_with_other_code_than_was_noted_stops(project: Path) -> None:
    file = "src/posttrain/core/files.py"
    with (project / file).open("a") as opened:
        opened.write("EDITED = 1\n")
    assert refused(project, "audit") == (
        f"{file} has changed since stage code hashed it for audit; run dvc repro, or python stages/code.py"
    )


def test_a_missing_path_of_the_data_set_is_named(project: Path) -> None:
    set_params(project, {"dataset": "finqa", "datasets.finqa.path": "nowhere/finqa"})
    message = refused(project, "fetch")
    assert "nowhere/finqa" in message and "datasets.finqa.path" in message


def test_a_stage_without_its_input_names_it(project: Path) -> None:
    shutil.rmtree(project / "data/examples")
    assert "data/examples/train.jsonl" in refused(project, "pools")


def test_a_training_without_its_base_model_names_it(project: Path) -> None:
    assert "models/base" in refused(project, "selector_sft", "0")


def test_a_hub_model_that_is_not_in_the_cache_is_named_offline(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    set_params(project, {"model": "llama-3-2-1b"})
    message = refused(project, "base")
    assert "meta-llama/Llama-3.2-1B" in message and "cannot be reached" in message


def test_a_place_that_cannot_be_written_is_named(project: Path) -> None:
    shutil.rmtree(project / "data")
    (project / "data").write_text("a file where a folder should be")
    assert refused(project, "code").startswith("cannot write data/code")


def test_a_full_disk_leaves_the_previous_output(project: Path) -> None:
    """A limit on file size makes a write fail like a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    for stage in ("fetch", "examples", "pools"):
        message = refused(project, stage, preexec_fn=limit)
        assert message.startswith("cannot write data/") and stage in message
        assert message.endswith("File too large")


@pytest.mark.parametrize("stage", ["fetch", "examples", "pools"])
def test_a_stage_killed_while_it_writes_leaves_its_previous_output(
    project: Path, stage: str
) -> None:
    def output() -> dict[str, int]:
        return {name: time for name, time in files(project).items() if f"data/{stage}/" in name}

    before = output()
    process = start(project, "python", f"stages/{stage}.py")
    while not list((project / "data").glob(f".{stage}.*")):
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert output() == before
    must(project, "python", f"stages/{stage}.py")
    assert output().keys() == before.keys()

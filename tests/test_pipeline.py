"""The whole pipeline by `dvc repro`, on a tiny configuration in a temporary clone."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workspace import TINY, copy_project, must, run, set_params, start

from posttrain.core.files import read_jsonl
from posttrain.report.rerank import ASKING
from posttrain.tasks import get_task

METHODS = TINY["selector.methods"]
GENERATOR_METHODS = TINY["generator.methods"]
MODELS = (
    "models/base",
    "models/selector/base/0",
    "models/selector/sft/0",
    "models/selector/ppo/0",
    "models/generator/base/0",
    "models/generator/sft/0",
)
TRAINED = [name for name in MODELS if name.split("/")[-2] in ("sft", "ppo")]
GENERATORS = (*(f"models/generator/{method}/0" for method in GENERATOR_METHODS),)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the working tree as one commit, the origin of both clones."""
    return copy_project(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="module")
def project(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone after its first `dvc repro`."""
    clone = tmp_path_factory.mktemp("first") / "project"
    must(origin, "git", "clone", "--quiet", ".", str(clone))
    must(clone, "dvc", "repro")
    return clone


@pytest.fixture(scope="module")
def killed(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another clone, whose SFT was killed between two checkpoints."""
    clone = tmp_path_factory.mktemp("second") / "another-name"
    must(origin, "git", "clone", "--quiet", ".", str(clone))
    must(clone, "dvc", "repro", "pools", "base")
    kill_at_checkpoint(clone, "selector_sft@0")
    assert not (clone / "models/selector/sft/0").exists()
    return clone


def kill_at_checkpoint(
    project: Path, stage: str, pattern: str = "*/loop.safetensors", alone: bool = False
) -> None:
    """Run the stage, and kill DVC with SIGKILL as soon as there is a checkpoint; unless `alone` also the stage."""
    force = ["--force"] if alone else []
    process = start(project, "dvc", "repro", "--single-item", *force, stage, start_new_session=True)
    deadline = time.monotonic() + 300
    try:
        while not list((project / ".checkpoints").glob(pattern)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        process.communicate()  # to the end of all that writes there


def ran(output: str) -> set[str]:
    """The stages that `dvc repro` ran, other than `inputs`, which always runs."""
    lines = output.splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")} - {"inputs"}


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_repro_makes_every_output(project: Path) -> None:
    for name in (*MODELS, *GENERATORS):
        assert "manifest.json" in contents(project / name)
    for name in ("plots/report.md", "plots/report.html"):
        assert (project / name).stat().st_size > 0
    reranked = json.loads((project / "metrics/rerank/0.json").read_text())
    assert reranked["oracle_accuracy"] >= reranked["selector_accuracy"]
    assert reranked["rule"] in ASKING and reranked["val"]["questions"] > 0
    for family, methods in (("selector", METHODS), ("generator", GENERATOR_METHODS)):
        compared = json.loads((project / f"metrics/compare/{family}.json").read_text())
        assert {"base", "sft", *methods} <= compared.keys()
        table = (project / f"plots/compare/{family}.md").read_text().lower()
        assert all(f"| {method} " in table for method in methods)


def test_reranking_is_of_other_samples_than_the_evaluation(project: Path) -> None:
    task = get_task("finqa")
    examples = {row["id"]: row for row in read_jsonl(project / "data/examples/test.jsonl")}
    evaluated: dict[str, set[str]] = {name: set() for name in examples}
    for file in ("greedy", "samples"):
        for row in read_jsonl(project / f"data/generator_evaluate/sft/0/{file}.jsonl"):
            if row["id"] in examples:
                evaluated[row["id"]].add(task.calculate(row["text"], examples[row["id"]]))
    reranked = read_jsonl(project / "data/rerank/0/choices.jsonl")
    assert [row["id"] for row in reranked] == list(examples)
    assert any(
        {one["text"] for one in row["candidates"]} - evaluated[row["id"]] for row in reranked
    )


def test_the_artifacts_are_the_models_that_are_best_on_validation(project: Path) -> None:
    chosen = json.loads((project / "metrics/best.json").read_text())
    for family, measure in (("selector", "accuracy"), ("generator", "execution_accuracy")):
        reached = {
            path.parent.name: json.loads(path.read_text())["val"][measure]
            for path in (project / f"metrics/{family}_evaluate").glob("*/0.json")
            if path.parent.name != "base"
        }
        policy = chosen[family]["policy"]
        assert chosen[family]["val_accuracy"] == max(reached.values()) == reached[policy]
        origin = project / "models" / family / policy / "0"
        assert contents(project / "models/best" / family) == contents(origin)
    assert YAML(typ="safe").load(project / "dvc.yaml")["artifacts"].keys() == chosen.keys()


def test_a_second_repro_looks_at_the_inputs_alone(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    assert ran(must(project, "dvc", "repro")) == set()
    assert (project / "dvc.lock").read_bytes() == before
    assert must(project, "dvc", "status").split() == ["inputs:", "always", "changed"]


def test_metrics_and_curves_can_be_shown(project: Path) -> None:
    shown = json.loads(must(project, "dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert all("error" not in entry for entry in files.values())
    assert files.keys() == {
        f"metrics/compare/{family}.json" for family in ("selector", "generator")
    }
    assert all(set(of) == {"accuracy"} for file in files.values() for of in file["data"].values())
    table = must(project, "dvc", "metrics", "show").splitlines()
    assert max(map(len, table)) < 40 + 20 * len({*METHODS, *GENERATOR_METHODS, "base", "sft"})
    named = must(
        project, "dvc", "metrics", "show", "--json", "metrics/selector_evaluate/ppo/0.json"
    )
    assert "accuracy" in named
    must(project, "dvc", "plots", "show", "--out", "drawn")
    page = (project / "drawn/index.html").read_text()
    assert "selector-curves" in page


def test_small_results_are_for_git_and_large_ones_are_not(project: Path) -> None:
    listed = must(project, "git", "status", "--porcelain", "--untracked-files=all").split("\n")
    names = {line[3:] for line in listed if line}
    assert {"dvc.lock", "metrics/compare/selector.json", "plots/compare/selector.md"} <= names
    assert not [name for name in names if name.startswith(("data/", "models/", ".checkpoints/"))]


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(
    project: Path, killed: Path
) -> None:
    """The clones are of one commit, so everything before it has the same bytes too."""
    output = must(killed, "dvc", "repro", "selector_sft@0")
    assert ran(output) == {"selector_sft@0"}
    of_sft = ("models/selector/sft/0", "plots/curves/selector/sft/0")
    for name in ("data/pools", "models/base", *of_sft):
        assert contents(killed / name) == contents(project / name), name
    assert not list((killed / ".checkpoints").iterdir())


def test_a_killed_generator_training_resumes_and_ends_with_the_same_bytes(
    project: Path, killed: Path
) -> None:
    must(killed, "dvc", "repro", "demonstrations")
    kill_at_checkpoint(killed, "generator_sft@0", "*/checkpoint-*/best.safetensors")
    assert not (killed / "models/generator/sft/0").exists()
    assert ran(must(killed, "dvc", "repro", "generator_sft@0")) == {"generator_sft@0"}
    for name in ("models/generator/sft/0", "plots/curves/generator/sft/0"):
        assert contents(killed / name) == contents(project / name), name


def test_two_clones_have_the_same_lock_file(project: Path, killed: Path) -> None:
    must(killed, "dvc", "repro", "selector_evaluate@ppo-0")
    # DVC writes independent stages in the order it happened to run them.
    one, other = (YAML(typ="safe").load(path / "dvc.lock")["stages"] for path in (killed, project))
    assert {"selector_evaluate@ppo-0", "generator_sft@0"} <= one.keys()
    assert one == {stage: other[stage] for stage in one}
    for name in MODELS:
        assert contents(killed / name) == contents(project / name), name


def test_during_a_training_a_second_repro_is_refused_and_an_edit_not_recorded(
    project: Path, killed: Path
) -> None:
    """DVC hashes the code after the training has ended, and would record the edited file as the model's code."""
    stage, edited = "selector_rl@exact-0", "src/posttrain/selector/train.py"
    before = (killed / edited).read_bytes()
    process = start(killed, "dvc", "repro", "--single-item", stage)
    while "selector/exact/0" not in (killed / ".dvc/tmp/rwlock").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    second = run(killed, "dvc", "repro", "--single-item", stage)
    assert second.returncode != 0
    assert re.search("/selector/exact/0' is busy", second.stderr)
    while not list((killed / ".checkpoints").glob("*/loop.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (killed / edited).write_bytes(before + b"ADDED = 1\n")
    _, errors = process.communicate()
    assert process.returncode != 0
    assert (
        f"{stage}: {edited} has changed since stage code hashed it for selector_rl/exact" in errors
    )
    assert stage not in (killed / "dvc.lock").read_text()
    (killed / edited).write_bytes(before)
    must(killed, "dvc", "repro", "--single-item", stage)
    name = "models/selector/exact/0"
    assert contents(killed / name) == contents(project / name)


def test_a_training_ends_with_the_dvc_that_runs_it_and_the_next_one_resumes(killed: Path) -> None:
    name, stage = "models/selector/exact/0", "selector_rl@exact-0"
    expected = contents(killed / name)
    kill_at_checkpoint(killed, stage, alone=True)
    assert not (killed / name).exists()
    (checkpoint,) = (killed / ".checkpoints").glob("*/loop.safetensors")
    assert ran(must(killed, "dvc", "repro", "--single-item", "--force", stage)) == {stage}
    assert contents(killed / name) == expected
    assert not checkpoint.exists()


def test_a_changed_byte_of_a_model_is_refused_and_made_again(project: Path) -> None:
    name = "models/selector/ppo/0"
    expected = contents(project / name)
    (file,) = (project / name).rglob("model.safetensors")
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.unlink()  # it may be a link into DVC's cache
    file.write_bytes(changed)
    done = run(project, "python", "stages/selector_evaluate.py", "ppo", "0")
    told = f"{file.relative_to(project)} has changed since {name}/manifest.json was written"
    assert done.returncode == 1
    assert done.stderr == f"selector_evaluate: {told}; dvc repro makes it again\n"
    must(project, "dvc", "repro", "selector_rl@ppo-0")
    assert contents(project / name) == expected


def test_a_manifest_has_every_parameter_that_dvc_tracks(project: Path) -> None:
    """Otherwise a checkpoint of other params would be resumed. The model's entry stands for its name."""
    stages = YAML(typ="safe").load(project / "dvc.lock")["stages"]
    found = set()
    for folder in (
        *TRAINED,
        *GENERATORS,
        "data/generator_sample/0",
        "data/selector_evaluate/ppo/0",
    ):
        manifest = json.loads((project / folder / "manifest.json").read_text())
        (stage,) = (s for s in stages.values() if any(o["path"] == folder for o in s["outs"]))
        tracked = {key.replace("models.pocket", "model") for key in stage["params"]["params.yaml"]}
        assert manifest["params"].keys() == tracked - {"datasets.sample.task"}, folder
        found.add(manifest["stage"])
    assert len(found) == 7


def test_a_checkpoint_of_other_params_is_not_resumed(killed: Path) -> None:
    """A run with another learning rate leaves its checkpoint; this one must start afresh."""
    expected = contents(killed / "models/selector/sft/0")
    params = (killed / "params.yaml").read_bytes()
    set_params(killed, {"selector.sft.learning_rate": 1.0e-5})
    kill_at_checkpoint(killed, "selector_sft@0")
    (killed / "params.yaml").write_bytes(params)
    # Not by DVC, whose run cache knows the result.
    must(killed, "python", "stages/selector_sft.py", "0")
    assert contents(killed / "models/selector/sft/0") == expected
    checkpoints = list((killed / ".checkpoints").glob("*/loop.safetensors"))
    assert len(checkpoints) == 1  # the other run's, untouched


def test_a_parameter_of_one_method_reruns_that_method_alone(project: Path) -> None:
    set_params(project, {"selector.ppo.clip_range": 0.1})
    output = must(project, "dvc", "repro")
    # The clip range does not bind in so few steps, so the result may be the same as before.
    after = {"selector_evaluate@ppo-0", "compare@selector", "report", "best"}
    assert {"code", "selector_rl@ppo-0"} <= ran(output) <= {"code", "selector_rl@ppo-0", *after}


def test_an_edit_of_a_comment_reruns_the_note_of_the_code_alone(project: Path) -> None:
    file = project / "src/posttrain/core/loop.py"
    text = file.read_text().replace('"""The training loop', '"""A training loop')
    file.write_text(f"{text}# edited\n")
    assert ran(must(project, "dvc", "repro")) == {"code"}


def test_an_edit_of_how_answers_are_explained_reruns_the_report_alone(project: Path) -> None:
    file = project / "src/posttrain/tasks/finqa/explain.py"
    file.write_text(f"{file.read_text()}\n\nADDED = 1\n")
    assert ran(must(project, "dvc", "repro")) == {"code", "report"}


def test_an_edit_of_a_loss_reruns_its_method(project: Path) -> None:
    """The model stays the same, but its manifest names the code, so the stages that depend on it run again too."""
    file = project / "src/posttrain/selector/methods/exact.py"
    file.write_text(f"{file.read_text()}\n\nADDED = 1\n")
    after = {"selector_evaluate@exact-0", "compare@selector", "report", "best"}
    assert ran(must(project, "dvc", "repro")) == {"code", "selector_rl@exact-0", *after}


def test_an_unknown_parameter_is_refused_by_exp_run(project: Path) -> None:
    done = run(project, "dvc", "exp", "run", "-S", "selector.ppo.clip_rnage=0.1", "--dry")
    assert done.returncode != 0
    assert "clip_rnage" in done.stderr

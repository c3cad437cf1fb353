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

METHODS = TINY["rl.selector.methods"]
GENERATOR_METHODS = TINY["rl.generator.methods"]
MODELS = (
    "models/base",
    "models/sft_selector/0",
    "models/rl_selector/ppo-0",
    "models/sft_generator/0",
)
GENERATORS = (*(f"models/rl_generator/{method}-0" for method in GENERATOR_METHODS),)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as one commit, which both clones are of."""
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
    must(clone, "dvc", "repro", "rewards", "base")
    kill_at_checkpoint(clone, "sft_selector@0")
    assert not (clone / "models/sft_selector/0").exists()
    return clone


def kill_at_checkpoint(project: Path, stage: str, pattern: str = "*.safetensors") -> None:
    """Start the stage, and kill -9 it and DVC as soon as there is a checkpoint."""
    process = start(project, "dvc", "repro", "--single-item", stage, start_new_session=True)
    deadline = time.monotonic() + 300
    try:
        while not list((project / ".checkpoints").glob(pattern)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ran(output: str) -> set[str]:
    """The stages that `dvc repro` ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_repro_makes_every_output(project: Path) -> None:
    for name in (*MODELS, *GENERATORS):
        assert "manifest.json" in contents(project / name)
    for name in ("plots/report.md", "plots/report.html"):
        assert (project / name).stat().st_size > 0
    generators = json.loads((project / "metrics/compare_generator.json").read_text())
    assert {"base", "sft", *GENERATOR_METHODS} == generators["generator"].keys()
    opened = json.loads((project / "metrics/open_evaluation/0.json").read_text())
    assert opened["oracle_accuracy"] >= opened["selector_accuracy"]
    compared = json.loads((project / "metrics/compare.json").read_text())
    assert {"base", "sft", *METHODS, "best_trivial_rule"} == compared["selector"].keys()
    assert all(f"| {method} |" in (project / "plots/compare.md").read_text() for method in METHODS)


def test_the_artifacts_are_the_models_that_are_best_on_validation(project: Path) -> None:
    chosen = json.loads((project / "metrics/best.json").read_text())
    for family, folder, figure in (
        ("selector", "evaluate", "accuracy"),
        ("generator", "evaluate_generator", "execution_accuracy"),
    ):
        reached = {
            path.stem: json.loads(path.read_text())["val"][figure]
            for path in (project / "metrics" / folder).glob("*.json")
            if not path.stem.startswith("base")
        }
        policy = chosen[family]["policy"]
        assert chosen[family]["val_accuracy"] == max(reached.values()) == reached[f"{policy}-0"]
        origin = f"sft_{family}/0" if policy == "sft" else f"rl_{family}/{policy}-0"
        assert contents(project / "models/best" / family) == contents(project / "models" / origin)
    assert YAML(typ="safe").load(project / "dvc.yaml")["artifacts"].keys() == chosen.keys()


def test_a_second_repro_says_up_to_date(project: Path) -> None:
    output = must(project, "dvc", "repro")
    assert "Data and pipelines are up to date." in output
    assert ran(output) == set()


def test_metrics_and_curves_can_be_shown(project: Path) -> None:
    shown = json.loads(must(project, "dvc", "metrics", "show", "--json"))
    files = shown[""]["data"]
    assert all("error" not in entry for entry in files.values())
    few = ("best", "compare", "compare_generator", "open_evaluation/0")
    assert files.keys() == {f"metrics/{name}.json" for name in few} | {"pretrain/metrics.json"}
    named = must(project, "dvc", "metrics", "show", "--json", "metrics/evaluate/ppo-0.json")
    assert "accuracy" in named
    must(project, "dvc", "plots", "show", "--out", "drawn")
    page = (project / "drawn/index.html").read_text()
    assert "RL validation reward" in page and "exact-0/val/reward.tsv" in page


def test_small_results_are_for_git_and_large_ones_are_not(project: Path) -> None:
    listed = must(project, "git", "status", "--porcelain", "--untracked-files=all").split("\n")
    names = {line[3:] for line in listed if line}
    assert {"dvc.lock", "metrics/compare.json", "plots/compare.md"} <= names
    assert not [name for name in names if name.startswith(("data/", "models/", ".checkpoints/"))]


def test_a_killed_training_resumes_and_ends_with_the_same_bytes(
    project: Path, killed: Path
) -> None:
    """Also two clones of one commit, so the same bytes for everything before it."""
    output = must(killed, "dvc", "repro", "sft_selector@0")
    assert ran(output) == {"sft_selector@0"}
    for name in ("data/rewards", "models/base", "models/sft_selector/0", "plots/sft_selector/0"):
        assert contents(killed / name) == contents(project / name), name
    assert not list((killed / ".checkpoints").iterdir())


def test_a_killed_generator_training_resumes_and_ends_with_the_same_bytes(
    project: Path, killed: Path
) -> None:
    kill_at_checkpoint(killed, "sft_generator@0", "*/checkpoint-*/best.safetensors")
    assert not (killed / "models/sft_generator/0").exists()
    assert ran(must(killed, "dvc", "repro", "sft_generator@0")) == {"sft_generator@0"}
    for name in ("models/sft_generator/0", "plots/sft_generator/0"):
        assert contents(killed / name) == contents(project / name), name


def test_two_clones_have_the_same_lock_file(project: Path, killed: Path) -> None:
    must(killed, "dvc", "repro", "evaluate@ppo-0")
    # DVC writes independent stages in the order it happened to run them.
    one, other = (YAML(typ="safe").load(path / "dvc.lock")["stages"] for path in (killed, project))
    assert {"evaluate@ppo-0", "sft_generator@0"} <= one.keys()
    assert one == {stage: other[stage] for stage in one}
    for name in MODELS:
        assert contents(killed / name) == contents(project / name), name


def test_during_a_training_a_second_repro_is_refused_and_an_edit_not_recorded(
    project: Path, killed: Path
) -> None:
    """DVC hashes the code when the training has ended, and would take the model for one of the edited file."""
    stage, edited = "rl_selector@exact-0", "src/posttrain/selector/train.py"
    before = (killed / edited).read_bytes()
    process = start(killed, "dvc", "repro", "--single-item", stage)
    while stage.replace("@", "/") not in (killed / ".dvc/tmp/rwlock").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    second = run(killed, "dvc", "repro", "--single-item", stage)
    assert second.returncode != 0
    assert re.search("/(models|plots)/rl_selector/exact-0' is busy", second.stderr)
    while not list((killed / ".checkpoints").glob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    (killed / edited).write_bytes(before + b"# edited\n")
    _, errors = process.communicate()
    assert process.returncode != 0
    assert f"{stage}: {edited} was changed while this ran" in errors
    assert stage not in (killed / "dvc.lock").read_text()
    (killed / edited).write_bytes(before)
    must(killed, "dvc", "repro", "--single-item", stage)
    name = "models/rl_selector/exact-0"
    assert contents(killed / name) == contents(project / name)


def test_a_manifest_has_every_parameter_that_dvc_tracks(project: Path) -> None:
    """Else a checkpoint of other params would be resumed. The model's name says less than its entry."""
    stages = YAML(typ="safe").load(project / "dvc.lock")["stages"]
    found = set()
    for folder in (*MODELS[1:], *GENERATORS, "data/sample/0", "data/evaluate/ppo-0"):
        manifest = json.loads((project / folder / "manifest.json").read_text())
        (stage,) = (s for s in stages.values() if any(o["path"] == folder for o in s["outs"]))
        tracked = {key.replace("models.pocket", "model") for key in stage["params"]["params.yaml"]}
        assert manifest["params"].keys() == tracked - {"datasets.sample.task"}, folder
        found.add(manifest["stage"])
    assert len(found) == 6


def test_a_checkpoint_of_other_params_is_not_resumed(killed: Path) -> None:
    """The run of another learning rate leaves its checkpoint; this one must start anew."""
    expected = contents(killed / "models/sft_selector/0")
    params = (killed / "params.yaml").read_bytes()
    set_params(killed, {"sft.selector.learning_rate": 1.0e-5})
    kill_at_checkpoint(killed, "sft_selector@0")
    (killed / "params.yaml").write_bytes(params)
    # Not by DVC, whose run cache knows the result.
    must(killed, "python", "stages/sft_selector.py", "0")
    assert contents(killed / "models/sft_selector/0") == expected
    checkpoints = list((killed / ".checkpoints").glob("*.safetensors"))
    assert len(checkpoints) == 1  # the other run's, untouched


def test_a_parameter_of_one_method_reruns_that_method_alone(project: Path) -> None:
    set_params(project, {"rl.selector.ppo.clip_range": 0.1})
    assert ran(must(project, "dvc", "repro", "--dry")) >= {"rl_selector@ppo-0"}
    output = must(project, "dvc", "repro")
    # The clip range does not bind in so few steps: what comes out may be the same as before.
    assert {"rl_selector@ppo-0"} <= ran(output)
    assert ran(output) <= {"rl_selector@ppo-0", "evaluate@ppo-0", "compare", "report", "best"}


def test_an_unknown_parameter_is_refused_by_exp_run(project: Path) -> None:
    done = run(project, "dvc", "exp", "run", "-S", "rl.selector.ppo.clip_rnage=0.1", "--dry")
    assert done.returncode != 0
    assert "clip_rnage" in done.stderr

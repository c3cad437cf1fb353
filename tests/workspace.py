"""A copy of the project in a temporary folder, with a pipeline so small that it runs in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from posttrain.core.params import Params
from posttrain.pools.make import make_pools
from posttrain.tasks import Example, Task

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

METHODS: tuple[str, ...] = ("sft_plus", "ppo", "grpo", "rloo", "dpo", "exact")
GENERATOR_METHODS: tuple[str, ...] = ("sft_plus", "ppo", "grpo", "rloo", "dpo")
TINY: dict[str, Any] = {
    "seeds": [0],
    # Two of each kind: a stage costs seconds, most of them imports. `test_architectures` runs all.
    "selector.methods": ["ppo", "exact"],
    "selector.policies": ["base", "sft", "ppo", "exact"],
    "generator.methods": ["ppo", "dpo"],
    "generator.policies": ["base", "sft", "ppo", "dpo"],
    "datasets.sample.train": 60,
    "datasets.sample.val": 20,
    "datasets.sample.test": 20,
    "pools.oversample": 1,
    "models.pocket.batch_size": 8,
    "models.pocket.max_candidate_tokens": 96,
    "selector.common.steps": 2,
    "selector.common.prompts_per_step": 8,
    "selector.exact.steps": 20,  # long enough to be looked at while it trains
    "generator.common.steps": 2,
    "generator.common.evaluations": 1,
    "generator.common.evaluation_questions": 4,
    "generator.common.samples": 2,
    "generator.common.prompts": "all",
    "generator.common.prompts_per_step": 4,
    "generator.sample.questions": 20,
    # PPO asks the questions with right and wrong samples, of which there are few here.
    "generator.ppo.prompts": "mixed",
    "generator.ppo.prompts_per_step": 2,
    "generator.dpo.pairs_per_step": 4,
    "evaluate.bootstrap": 50,
    "evaluate.generator.samples": 2,
    "evaluate.generator.temperatures": [0.5],
    "compare.bootstrap": 50,
}


def copy_project(target: Path, changes: Mapping[str, Any] = TINY) -> Path:
    """Tracked and untracked files of the working tree as a fresh git repository in `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    results = ("metrics/", "plots/", "dvc.lock")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(results):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    set_params(target, changes)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "copy"]):
        subprocess.run([*git, *command], cwd=target, check=True, capture_output=True)
    return target


def edit_params(project: Path, edit: Callable[[Any], None]) -> None:
    """Change params.yaml in place, keeping its comments."""
    yaml = YAML()
    values = yaml.load(project / "params.yaml")
    edit(values)
    yaml.dump(values, project / "params.yaml")


def set_params(project: Path, changes: Mapping[str, Any]) -> None:
    """Set keys, written `a.b.c`."""

    def edit(values: Any) -> None:
        for key, value in changes.items():
            section = values
            *path, last = key.split(".")
            for part in path:
                section = section[part]
            section[last] = value

    edit_params(project, edit)


def environment(project: Path) -> dict[str, str]:
    """The environment after `make setup`: the programs and the package."""
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DVC_NO_ANALYTICS": "1",
    }


def start(project: Path, *command: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment(project),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def run(project: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever its exit code."""
    return subprocess.run(
        command,
        cwd=project,
        env=environment(project),
        text=True,
        capture_output=True,
        timeout=900,
        **options,
    )


def must(project: Path, *command: str) -> str:
    """The output of a command that has to succeed."""
    done = run(project, *command)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def rewarded_pools(
    task: Task, params: Params, examples: Mapping[str, Sequence[Example]]
) -> dict[str, list[list[dict[str, Any]]]]:
    """The candidates of each example by split, as stage pools makes them."""
    return {
        split: [row["candidates"] for row in rows]
        for split, rows in make_pools(task, params, examples)
    }

"""A copy of the project in a temporary folder, with a pipeline so small that it runs in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ruamel.yaml import YAML

from posttrain.core.params import GeneratorMethod, Method, Params
from posttrain.pools.make import pool_maker
from posttrain.pools.rewards import reward_pool
from posttrain.tasks import Example, Task

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

METHODS: tuple[str, ...] = get_args(Method)
GENERATOR_METHODS: tuple[str, ...] = get_args(GeneratorMethod)
TINY: dict[str, Any] = {
    "seeds": [0],
    # Two of each kind: a stage costs seconds, most of them imports. `test_architectures` runs all.
    "rl.selector.methods": ["ppo", "exact"],
    "rl.generator.methods": ["ppo", "dpo"],
    "compare.policies": ["base", "sft", "ppo", "exact"],
    "datasets.sample.train": 60,
    "datasets.sample.val": 20,
    "datasets.sample.test": 20,
    "candidates.oversample": 1,
    "models.pocket.batch_size": 8,
    "models.pocket.max_candidate_tokens": 96,
    "sft.selector.epochs": 1,
    "sft.selector.evaluations": 2,
    "sft.generator.epochs": 1,
    "sft.generator.evaluations": 2,
    "sft.generator.evaluation_questions": 4,
    "sample.questions": 20,
    "evaluate.bootstrap": 50,
    "evaluate.generator.samples": 2,
    "compare.bootstrap": 50,
    **{f"rl.selector.{method}.steps": 2 for method in METHODS},
    **{f"rl.selector.{method}.prompts_per_step": 8 for method in METHODS},
    **{f"rl.selector.{method}.evaluations": 1 for method in METHODS},
    **{f"rl.generator.{method}.steps": 2 for method in GENERATOR_METHODS},
    **{f"rl.generator.{method}.evaluations": 1 for method in GENERATOR_METHODS},
    **{f"rl.generator.{method}.evaluation_questions": 4 for method in GENERATOR_METHODS},
    # PPO asks the questions with right and wrong samples, of which there are few here.
    "rl.generator.ppo.prompts_per_step": 2,
    **{f"rl.generator.{method}.prompts": "all" for method in ("grpo", "rloo")},
    **{f"rl.generator.{method}.prompts_per_step": 4 for method in ("grpo", "rloo")},
    **{f"rl.generator.{method}.samples": 2 for method in ("ppo", "grpo", "rloo")},
    "rl.generator.ppo.value_warmup_steps": 1,
    "rl.generator.dpo.pairs_per_step": 4,
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
    """Change params.yaml in place, comments kept."""
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
    """What a person has after `make setup`: the programs and the package."""
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
    """The finished command, whatever its exit code."""
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
    """The candidates of each example by split, as stages candidates and rewards make them."""
    make = pool_maker(task, params, examples["train"])
    return {
        split: [
            reward_pool(
                task,
                example,
                [{"text": c.text, "kind": c.kind, "edit": c.edit} for c in make(example)],
                params.rewards,
            )["candidates"]
            for example in examples[split]
        ]
        for split in examples
    }

"""The whole pipeline on a small scale, from raw data to the report, in a folder of its own.

    python -m posttrain.demo        (make demo)

It copies the project to `demo/`, sets `SMALL` in the params.yaml there, runs `dvc repro report` and shows the report. A
few hundred questions and one RL method per family show how the parts work together, but not which method helps.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from posttrain.core.errors import UserError
from posttrain.core.params import PACKAGE

PROJECT = PACKAGE.parents[1]
DEMO = Path("demo")
PARTS = ("src", "stages", "pretrain", "dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore")
SMALL: dict[str, Any] = {
    "datasets.sample.train": 400,
    "datasets.sample.val": 60,
    "datasets.sample.test": 120,
    "selector.methods": ["rloo"],
    "selector.policies": ["base", "sft", "rloo"],
    "selector.common.evaluation_questions": 60,
    "selector.common.steps": 8,
    "selector.sft.evaluations": 1,
    "generator.methods": ["grpo"],
    "generator.policies": ["base", "sft", "grpo"],
    "generator.common.evaluation_questions": 30,
    "generator.common.evaluations": 1,
    "generator.common.steps": 8,
    "generator.sample.questions": 100,
    "evaluate.generator.samples": 2,
    "evaluate.generator.temperatures": [0.5],
    "evaluate.bootstrap": 500,
    "compare.bootstrap": 1000,
    "report.questions": 60,
}


def main() -> None:
    started = time.monotonic()
    if not (PROJECT / "dvc.yaml").is_file():
        raise UserError(f"{PROJECT / 'dvc.yaml'}: missing; run the demo in a clone of the project")
    shutil.rmtree(DEMO, ignore_errors=True)
    for part in PARTS:
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy2
        (DEMO / part).parent.mkdir(parents=True, exist_ok=True)
        copy(PROJECT / part, DEMO / part)
    make_small(DEMO / "params.yaml")
    environment = os.environ | {"PYTHONPATH": str((DEMO / "src").resolve())}
    for command in (["init", "--no-scm", "--quiet", "--force"], ["repro", "--quiet", "report"]):
        done = subprocess.run(["dvc", *command], cwd=DEMO, env=environment, check=False)
        if done.returncode:
            sys.exit(f"demo: dvc {command[0]} failed in {DEMO}")
    report = (DEMO / "plots/report.html").resolve()
    minutes = (time.monotonic() - started) / 60
    print(
        f"\nThat was the pipeline in small, in {minutes:.1f} minutes: too few questions and steps to say which method "
        f"helps.\nThe report: {report}\nTo change a setting in small: edit {DEMO}/params.yaml, then "
        f"cd {DEMO} && PYTHONPATH=src dvc repro report\nThe real run: make repro"
    )
    if sys.stdout.isatty() and (sys.platform != "linux" or "DISPLAY" in os.environ):
        webbrowser.open(report.as_uri())


def make_small(path: Path) -> None:
    """Set the values of `SMALL` in a params.yaml."""
    yaml = YAML()
    values = yaml.load(path)
    for key, value in SMALL.items():
        section = values
        *sections, last = key.split(".")
        for part in sections:
            section = section[part]
        section[last] = value
    yaml.dump(values, path)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"demo: {error}")

"""A stage that uses a module without naming it in dvc.yaml would not run again after an edit."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from workspace import ROOT, environment

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]

# The task's package is imported when a stage asks for it, so the probe asks too.
PROBE = """
import json, runpy, sys
from pathlib import Path
sys.path.insert(0, "stages")
runpy.run_path(sys.argv[1], run_name="probe")
if "posttrain.tasks" in sys.modules:
    sys.modules["posttrain.tasks"].get_task("finqa")
names = [name for name in sys.modules if name.split(".")[0] == "posttrain"]
print(json.dumps([sys.modules[name].__file__ for name in names]))
"""


def _script(stage: str) -> str:
    """The file of `cmd`: "${launch} stages/evaluate.py sft 0" gives stages/evaluate.py."""
    (script,) = (word for word in STAGES[stage]["cmd"].split() if word.endswith(".py"))
    return str(script)


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """The project's files that each stage's script imports, apart from mere docstrings."""
    found = {}
    for script in {_script(stage) for stage in STAGES}:
        probe = subprocess.run(
            [sys.executable, "-c", PROBE, script],
            cwd=ROOT,
            env=environment(ROOT),
            capture_output=True,
            text=True,
            check=True,
        )
        files = (Path(name).resolve().relative_to(ROOT) for name in json.loads(probe.stdout))
        found[script] = {file.as_posix() for file in files if _has_code(ROOT / file)} | {script}
    return found


def _has_code(path: Path) -> bool:
    return len(ast.parse(path.read_text()).body) > 1


def _code_deps(stage: str) -> list[str]:
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]


def _covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_a_dependency(
    stage: str, imported: dict[str, set[str]]
) -> None:
    deps = _code_deps(stage)
    files = imported[_script(stage)]
    assert [file for file in sorted(files) if not any(_covers(dep, file) for dep in deps)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_no_dependency_is_a_module_that_the_stage_does_not_import(
    stage: str, imported: dict[str, set[str]]
) -> None:
    files = imported[_script(stage)]
    unused = [dep for dep in _code_deps(stage) if not any(_covers(dep, file) for file in files)]
    assert unused == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_a_description_and_dependencies_listed_once(stage: str) -> None:
    definition = STAGES[stage]
    assert definition["desc"]
    assert len(set(definition["deps"])) == len(definition["deps"])


@pytest.mark.parametrize("stage", STAGES)
def test_stage_file_and_output_folder_are_the_same_word(stage: str) -> None:
    # Policies without a method have a stage of their own, as their models lie elsewhere.
    word = stage.removesuffix("_sft").removesuffix("_base")
    assert _script(stage) == f"stages/{word}.py"
    outs = [out if isinstance(out, str) else next(iter(out)) for out in STAGES[stage]["outs"]]
    assert all(Path(out).parts[1].split(".")[0] == word for out in outs)

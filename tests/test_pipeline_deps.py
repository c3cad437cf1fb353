"""A stage that uses a module without naming it in dvc.yaml would not run again after an edit."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from workspace import ROOT

PIPELINE = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
METHODS = YAML(typ="safe").load(ROOT / "params.yaml")["rl"]["selector"]["methods"]
TASKS = ROOT / "src/posttrain/tasks/__init__.py"
SELECTOR = ROOT / "src/posttrain/selector/methods"


def _script(stage: str) -> str:
    """The file of `cmd`: "${launch} stages/evaluate.py sft 0" gives stages/evaluate.py."""
    (script,) = (word for word in STAGES[stage]["cmd"].split() if word.endswith(".py"))
    return str(script)


def _modules(name: str) -> list[Path]:
    """The files that `import name` runs: those of its packages and its own, apart from mere docstrings."""
    parts = name.split(".")
    files = []
    for count in range(1, len(parts) + 1):
        path = ROOT / "src" / Path(*parts[:count])
        files += [path.with_suffix(".py"), path / "__init__.py"]
    return [file for file in files if file.is_file() and len(_tree(file).body) > 1]


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _imports(file: Path) -> set[Path]:
    """The project's files that a file imports, at its top or inside a function."""
    names: list[str] = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {found for name in names if name.startswith("posttrain") for found in _modules(name)}


@cache
def imported(script: str) -> set[str]:
    """The project's files that a stage's script uses, itself among them."""
    found: set[Path] = set()
    new = {ROOT / script}
    if script == "stages/rl_selector.py":  # which imports the method that is asked for
        new |= {SELECTOR / f"{method}.py" for method in METHODS}
    while new:
        found |= new
        if TASKS in new:  # which imports the task that is asked for
            new |= set(TASKS.parent.glob("*/task.py"))
        new = {file for known in new for file in _imports(known)} - found
    return {file.relative_to(ROOT).as_posix() for file in found}


def _code_deps(stage: str) -> list[str]:
    deps = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("src/", "stages/"))]
    named = {dep.replace("${item.method}", method) for dep in deps for method in METHODS}
    return sorted(named)


def _covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_every_module_that_a_stage_imports_is_a_dependency(stage: str) -> None:
    deps = _code_deps(stage)
    files = imported(_script(stage))
    assert [file for file in sorted(files) if not any(_covers(dep, file) for dep in deps)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_no_dependency_is_a_module_that_the_stage_does_not_import(stage: str) -> None:
    files = imported(_script(stage))
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

"""The page docs/adding-a-task.md is right: a project in which one does what it says runs the new task."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from workspace import ROOT, TINY, copy_project, must, run, set_params

from posttrain.tasks import Task, get_task

PAGE = (ROOT / "docs/adding-a-task.md").read_text()
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.S)
TASKS = sorted(path.parent.name for path in (ROOT / "src/posttrain/tasks").glob("*/task.py"))


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == language]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's files and entry."""
    project = copy_project(tmp_path_factory.mktemp("sums"), TINY)
    files = re.findall(r"`(src/posttrain/tasks/\S+\.py)`:\n\n```python\n(.*?)```\n", PAGE, re.S)
    assert len(files) == len(blocks("python"))
    for name, text in files:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text(text)
    (entry,) = blocks("yaml")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("\ndatasets:\n", f"\ndatasets:\n{entry}"))
    set_params(project, {"dataset": "sums"})
    return project


def test_the_pages_task_runs_through_the_data_stages(project: Path) -> None:
    (commands,) = blocks("sh")
    for command in commands.splitlines():
        must(project, *command.split())
    pools = [json.loads(line) for line in (project / "data/rewards/train.jsonl").open()]
    assert len(pools) == 60 and all(len(pool["candidates"]) == 8 for pool in pools)
    metrics = json.loads((project / "metrics/rewards.json").read_text())
    assert metrics["pools"]["train"]["reward"]["gold"] == 1.0
    assert metrics["shortcuts"]["test"]["random"] == 0.125


def test_a_task_that_is_not_there_is_one_line_with_the_nearest_name(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    set_params(project, {"datasets.sums.task": "sum"})
    done = run(project, "python", "stages/fetch.py")
    (project / "params.yaml").write_text(before)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "fetch: params.yaml: datasets.sums.task: not one of the tasks finqa, gsm8k, sums; "
        "did you mean 'sums'? (found 'sum')"
    )


@pytest.mark.parametrize("name", TASKS)
def test_every_task_offers_the_whole_protocol(name: str) -> None:
    asked = [function for function in vars(Task) if not function.startswith("_")]
    assert len(asked) == 12
    assert [function for function in asked if not hasattr(get_task(name), function)] == []


def code(path: Path) -> str:
    """The file without comments and docstrings, which may tell of measurements."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def test_no_code_outside_the_tasks_knows_one_of_them() -> None:
    """Data sets are named in params.yaml; code asks `get_task`."""
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]
    outside = [path for path in files if not path.is_relative_to(ROOT / "src/posttrain/tasks")]
    names = re.compile("|".join(TASKS), re.I)
    assert [str(path) for path in outside if names.search(code(path))] == []

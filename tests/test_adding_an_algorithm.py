"""The steps of docs/adding-an-algorithm.md, followed as written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from toys import PARAMS, ROOT
from workspace import copy_project, must

from posttrain.core import code
from posttrain.core.files import read_json

PAGE = (ROOT / "docs/adding-an-algorithm.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's file and its edit of params.yaml."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder, {})
    ((name, module),) = re.findall(r"^`(\S+\.py)`\n\n```python\n(.*?)^```", PAGE, re.M | re.S)
    (folder / name).write_text(module, encoding="utf-8")
    (edit,) = re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S)
    subprocess.run(["git", "apply", "-"], input=edit, text=True, cwd=folder, check=True)
    return folder


def test_the_new_method_learns_and_resumes_like_the_others(project: Path) -> None:
    (command,) = re.findall(r"^pytest (.*?) *#", PAGE, re.M)
    assert re.search(r"[1-9]\d* passed", must(project, "pytest", *command.split()))


def test_its_stages_are_in_the_pipeline_and_no_other_is_new(project: Path) -> None:
    old, new = (
        set(must(folder, "dvc", "stage", "list", "--name-only").split())
        for folder in (ROOT, project)
    )
    assert new - old == {"selector_rl@remax-0", "selector_evaluate@remax-0"} and old <= new
    (target,) = re.findall(r"^dvc exp run (\S+)", PAGE, re.M)
    assert target in new


def test_no_other_method_has_other_code_by_it(project: Path, tmp_path: Path) -> None:
    """So none of them runs again."""
    must(project, "python", "stages/code.py")
    code.write_digests(tmp_path, PARAMS)
    old, new = (
        {path.relative_to(folder).as_posix(): read_json(path) for path in folder.glob("**/[!.]*")
         if path.is_file() and path.name != code.RAW}
        for folder in (tmp_path, project / code.CODE)
    )  # fmt: skip
    assert new.keys() - old.keys() == {"selector_rl/remax"}
    assert {name: new[name] for name in old} == old

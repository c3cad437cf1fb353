"""docs/adding-an-algorithm.md, done as written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from workspace import ROOT, copy_project, must

PAGE = (ROOT / "docs/adding-an-algorithm.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's module and edits."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(folder, {})
    ((name, module),) = re.findall(r"^`(\S+\.py)`\n\n```python\n(.*?)^```", PAGE, re.M | re.S)
    (folder / name).write_text(module, encoding="utf-8")
    for edit in re.findall(r"^```diff\n(.*?)^```", PAGE, re.M | re.S):
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
    assert new - old == {"rl_selector@remax-0", "evaluate@remax-0"} and old <= new

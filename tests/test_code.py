"""An edit changes the digests of the stages that it affects, which dvc.yaml depends on, and no others."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from posttrain.core import code
from posttrain.core.errors import UserError
from posttrain.core.params import Params, check_params, load_params

ROOT = Path(__file__).resolve().parent.parent
PIPELINE: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
METHODS = {
    "selector": ("sft_plus", "ppo", "grpo", "rloo", "dpo", "exact"),
    "generator": ("sft_plus", "ppo", "grpo", "rloo", "dpo"),
}
RL = [(family, method) for family, methods in METHODS.items() for method in methods]

Edit = Callable[[str], str]


class Project:
    """A copy of the code, to compare digests before and after an edit."""

    def __init__(self, root: Path, params: Params) -> None:
        self.root, self.params = root, params

    def digests(self) -> dict[str, code.Digest]:
        task = self.params.selected_dataset.task
        return {name: code.digest(name, task) for name in code.consumers(self.params)}

    def edit(self, change: Edit, *names: str) -> set[str]:
        """The consumers that an edit of these files changes; the files are put back."""
        before = self.digests()
        texts = {self.root / name: (self.root / name).read_text() for name in names}
        try:
            for file, text in texts.items():
                file.write_text(change(text))
                assert file.read_text() != text
            after = self.digests()
        finally:
            for file, text in texts.items():
                file.write_text(text)
        return {name for name in before if before[name] != after[name]}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for folder in ("src/posttrain", "stages"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "src/posttrain")
    return Project(tmp_path, load_params(ROOT / "params.yaml"))


def more_code(text: str) -> str:
    return f"{text}\nADDED = 1\n"


def other_comments(text: str) -> str:
    """The module with other docstrings, comments and formatting."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Another docstring."))
    return f"# a comment\n\n{ast.unparse(tree)}  # another\n"


def test_an_edit_of_comments_and_docstrings_reruns_nothing(project: Project) -> None:
    files = (
        "src/posttrain/core/loop.py",
        "src/posttrain/tasks/finqa/score.py",
        "src/posttrain/selector/methods/ppo.py",
        "stages/selector_sft.py",
    )
    assert project.edit(other_comments, *files) == set()


def test_an_edit_of_how_finqa_is_explained_reruns_the_report_alone(project: Project) -> None:
    assert project.edit(more_code, "src/posttrain/tasks/finqa/explain.py") == {"report"}


@pytest.mark.parametrize("name", ["page.py", "page.js", "page.css", "page.html"])
def test_an_edit_of_the_page_of_the_report_reruns_the_report_alone(
    project: Project, name: str
) -> None:
    changed = project.edit(more_code, f"src/posttrain/report/{name}")
    assert changed == {"report"}


@pytest.mark.parametrize(("family", "method"), RL)
def test_an_edit_of_a_loss_reruns_that_method_alone(
    project: Project, family: str, method: str
) -> None:
    changed = project.edit(more_code, f"src/posttrain/{family}/methods/{method}.py")
    assert changed == {f"{family}_rl/{method}"}


def test_an_edit_of_gsm8k_reruns_nothing_while_the_data_set_is_finqas(project: Project) -> None:
    files = sorted((project.root / "src/posttrain/tasks/gsm8k").glob("*.py"))
    assert len(files) > 5
    before = project.digests()
    for file in files:
        file.write_text(more_code(file.read_text()))
    assert project.digests() == before
    values = project.params.model_dump() | {"dataset": "gsm8k"}
    project.params = check_params(values)
    assert "generator_rl/ppo" in project.edit(more_code, "src/posttrain/tasks/gsm8k/score.py")


def test_an_edit_of_the_scorer_reruns_all_that_score(project: Project) -> None:
    changed = project.edit(more_code, "src/posttrain/tasks/finqa/score.py")
    assert {"pools", "generator_sft", "generator_evaluate", "rerank"} <= changed
    assert not {"fetch", "base", "selector_sft", "selector_rl/ppo", "compare"} & changed


def test_a_part_that_a_task_takes_over_from_the_default_counts(project: Project) -> None:
    def calculates_here(text: str) -> str:
        imports = re.sub(r"from posttrain\.tasks\.finqa\.calculate import .*\n", "", text)
        return f"{imports}\n\ndef calculate(text, example):\n    return text\n"

    changed = project.edit(calculates_here, "src/posttrain/tasks/finqa/task.py")
    assert "rerank" in changed and "fetch" not in changed


def test_a_new_file_that_nothing_imports_reruns_nothing(project: Project) -> None:
    before = project.digests()
    (project.root / "src/posttrain/selector/methods/remax.py").write_text("ADDED = 1\n")
    assert project.digests() == before


def test_types_alone_make_no_dependency(project: Project) -> None:
    lines = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import posttrain.report.page\n"
    )

    def read_for_its_types(text: str) -> str:
        return text.replace("from typing import Any\n", f"from typing import Any\n{lines}", 1)

    project_file = "src/posttrain/rollouts/record.py"
    assert "typing import Any" in (project.root / project_file).read_text()
    project.edit(read_for_its_types, project_file)
    assert not any("report/page.py" in files for files in [project.digests()["generator_sample"]])


# ------------------------------------------------------------------------------- at the start of a stage


def noted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    code.write_digests(Path("data/code"), project.params)


def test_a_stage_that_would_run_with_other_code_stops(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(project, monkeypatch)
    code.check("selector_rl/ppo", "finqa")
    file = project.root / "src/posttrain/selector/methods/ppo.py"
    text = file.read_text()
    file.write_text(other_comments(text))
    code.check("selector_rl/ppo", "finqa")  # comments do not count
    file.write_text(more_code(text))
    with pytest.raises(
        UserError, match=r"methods/ppo\.py has changed since stage code hashed it for sel.*ppo"
    ):
        code.check("selector_rl/ppo", "finqa")
    code.check("selector_rl/grpo", "finqa")


def test_a_stage_whose_code_was_never_noted_stops(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    with pytest.raises(UserError, match=r"data/code/fetch: missing; run python stages/code\.py"):
        code.check("fetch", "finqa")


# ------------------------------------------------------------------------------- dvc.yaml


def test_every_stage_depends_on_its_own_digest() -> None:
    for name, stage in PIPELINE.items():
        script = next(word for word in stage["cmd"].split() if word.endswith(".py"))
        assert script == f"stages/{name}.py"
        assert stage["desc"]
        if name == "code":
            assert stage["deps"] == ["src", "stages"]
            continue
        suffix = "/${item.method}" if name.endswith("_rl") else ""
        assert stage["deps"][0] == f"data/code/{name}{suffix}"
        assert not [dep for dep in stage["deps"] if dep.startswith(("src", "stages"))]


def test_a_stage_writes_where_its_name_says() -> None:
    for name, stage in PIPELINE.items():
        outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
        paths = [Path(out if isinstance(out, str) else next(iter(out))) for out in outs]
        for path in paths:
            family = path.parts[2] if path.parts[1] == "curves" else path.parts[1]
            of_policy = path.parts[0] == "models" or path.parts[1] == "curves"
            word = family if of_policy else path.parts[1].split(".")[0]
            assert name.startswith(word) or name in ("base", "best"), path


def test_every_script_is_a_stage_and_every_consumer_has_a_digest() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == set(PIPELINE)
    names = code.consumers(load_params(ROOT / "params.yaml"))
    assert {name.split("/")[0] for name in names} == set(PIPELINE)


# ------------------------------------------------------------------------------- rooms


def test_every_import_between_rooms_leads_down() -> None:
    arrows = code.room_imports()
    assert arrows["selector", "core"] > 10
    assert code.upward(arrows) == []
    assert {room for rooms in code.FLOORS for room in rooms} == {
        path.name for path in (ROOT / "src/posttrain").iterdir() if (path / "__init__.py").is_file()
    }


def test_an_import_that_leads_up_is_found(project: Project) -> None:
    file = project.root / "src/posttrain/core/errors.py"
    file.write_text("import posttrain.report.page\n")
    assert code.upward(code.room_imports()) == [("core", "report")]


def test_whatever_holds_a_task_is_called_task() -> None:
    """By that name the digests know which parts of a task a stage uses."""
    for file in (*ROOT.glob("src/posttrain/**/*.py"), *ROOT.glob("stages/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Assign) and "get_task(" in ast.unparse(node.value):
                (target,) = node.targets
                held, values = [target], [node.value]
                if isinstance(target, ast.Tuple):
                    assert isinstance(node.value, ast.Tuple)
                    held, values = target.elts, node.value.elts
                for name, value in zip(held, values, strict=True):
                    if ast.unparse(value).startswith("get_task("):
                        assert ast.unparse(name).split(".")[-1] == "task", file

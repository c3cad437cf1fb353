"""The steps of docs/adding-a-task.md, followed as written, give a project that runs the new task."""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from workspace import ROOT, TINY, copy_project, must, run, set_params

from posttrain.core.files import read_jsonl
from posttrain.tasks import NEEDED, Score, Task, get_task

PAGE = (ROOT / "docs/adding-a-task.md").read_text()
BLOCK = re.compile(r"```(\w+)\n(.*?)```\n", re.S)
LEFT = {
    "abd": ["calculate", "candidates", "describe"],
    "ded": ["calculate", "candidates", "describe"],
    "finqa": ["baselines", "score_all"],
    "gsm8k": ["baselines", "score_all"],
    "mixture": [],
    "sat": ["calculate", "score_all", "target"],
}  # to the default
TASKS = sorted(path.parent.name for path in (ROOT / "src/posttrain/tasks").glob("*/task.py"))


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE) if found == language]


SMALLEST, OWN_CANDIDATES = blocks("python")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's smallest task and entry."""
    project = copy_project(tmp_path_factory.mktemp("sums"), TINY)
    folder = project / "src/posttrain/tasks/sums"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "task.py").write_text(SMALLEST)
    (entry,) = blocks("yaml")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("\ndatasets:\n", f"\ndatasets:\n{entry}"))
    set_params(project, {"dataset": "sums"})
    return project


def run_the_page(project: Path) -> list[list[dict[str, Any]]]:
    """The training pools, after the page's commands."""
    commands = blocks("sh")[0]
    for command in commands.splitlines():
        must(project, *command.split())
    return [
        [*json.loads(line)["candidates"]] for line in (project / "data/pools/train.jsonl").open()
    ]


def test_the_experiment_of_the_page_runs_to_its_end(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In small: fewer sums, one method of each family."""
    small = shutil.copytree(project, tmp_path_factory.mktemp("whole") / "sums")
    changes = {"datasets.sums.train": 60, "datasets.sums.val": 20, "datasets.sums.test": 20}
    for family, method in (("selector", "exact"), ("generator", "dpo")):
        changes |= {f"{family}.methods": [method], f"{family}.policies": ["sft", method]}
    set_params(small, {**changes, "dataset": "sample", "selector.exact.steps": 2})
    must(small, "git", "add", "--all")
    must(small, "git", "-c", "user.name=t", "-c", "user.email=t@e.org", "commit", "-qm", "sums")
    (command,) = blocks("console")
    must(small, *command.removeprefix("$ ").split())
    assert "What is " in (small / "plots/report.html").read_text(encoding="utf-8")
    assert json.loads((small / "metrics/best.json").read_text())["generator"]["policy"]


def test_the_smallest_task_is_small() -> None:
    assert len(SMALLEST.splitlines()) <= 45


def test_three_functions_run_through_the_data_stages(project: Path) -> None:
    pools = run_the_page(project)
    (example, *_) = read_jsonl(project / "data/examples/train.jsonl")
    assert example["prompts"] == {"direct": f"{example['question']} Answer:"}
    assert example["target"] == example["target_answer"]
    assert len(pools) == 500 and all(len(pool) == 8 for pool in pools)
    metrics = json.loads((project / "metrics/pools.json").read_text())
    assert metrics["pools"]["train"]["reward"]["gold"] == 1.0
    assert metrics["pools"]["train"]["correct_per_pool"] == 1.0
    rules = metrics["blind"]["test"]
    assert rules["random"] == 0.125 and max(rules.values()) < 0.25


def test_candidates_of_its_own_are_taken_instead(project: Path) -> None:
    task = project / "src/posttrain/tasks/sums/task.py"
    task.write_text(f"{SMALLEST}\n\n{OWN_CANDIDATES}")
    pools = run_the_page(project)
    task.write_text(SMALLEST)
    for pool in pools:
        numbers = sorted(int(made["text"]) for made in pool)
        assert numbers == list(range(numbers[0], numbers[0] + 8))
        assert sum(made["correct"] for made in pool) == 1
    rules = json.loads((project / "metrics/pools.json").read_text())["blind"]["test"]
    assert max(rules.values()) < 0.25


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("def score(", "def judge(", "tasks/sums/task.py: has no function score"),
        ('"question": question, ', "", "example 0 of the task has no text 'question'"),
        ('"id": f"{a}+{b}+{c}"', '"id": "q"', "example 1 of the task: id 'q' is there twice"),
        (
            '"target_answer": str(a + b + c)',
            '"sum": a + b + c',
            "has no field 'target_answer', and its",
        ),
    ],
)
def test_what_a_task_lacks_is_one_line(
    project: Path, before: str, after: str, problem: str
) -> None:
    task = project / "src/posttrain/tasks/sums/task.py"
    for stage in ("code", "fetch", "audit"):
        must(project, "python", f"stages/{stage}.py")
    task.write_text(SMALLEST.replace(before, after))
    must(project, "python", "stages/code.py")
    done = run(project, "python", "stages/examples.py")
    task.write_text(SMALLEST)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert problem in done.stderr


def test_a_part_of_the_reward_without_a_weight_is_one_line(project: Path) -> None:
    task = project / "src/posttrain/tasks/sums/task.py"
    for stage in ("code", "fetch", "audit", "examples"):
        must(project, "python", f"stages/{stage}.py")
    task.write_text(SMALLEST.replace("format_valid", "tidy"))
    must(project, "python", "stages/code.py")
    done = run(project, "python", "stages/pools.py")
    task.write_text(SMALLEST)
    assert done.stderr.startswith(
        "pools: params.yaml: reward.weights: no weight for 'tidy', a part of this task's reward"
    )


def test_a_task_that_is_not_there_is_one_line_with_the_nearest_name(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    set_params(project, {"datasets.sums.task": "sum"})
    done = run(project, "python", "stages/fetch.py")
    (project / "params.yaml").write_text(before)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "fetch: params.yaml: datasets.sums.task: not one of the tasks abd, alfworld, babyai, ded, finqa, gsm8k, mixture, "
        "sat, sciworld, sums, textcraft, webshop; did you mean 'sums'? (found 'sum')"
    )


@pytest.mark.parametrize("name", TASKS)
def test_every_task_offers_nearly_the_whole_protocol(name: str) -> None:
    task = get_task(name)
    needed = {each for group in NEEDED for each in group}
    parts = [part for part in fields(Task) if part.name not in needed]
    assert len(parts) == 10
    left = [part.name for part in parts if getattr(task, part.name) is part.default]
    assert sorted(left) == sorted(LEFT[name])


def test_a_score_needs_two_fields_and_the_rest_follow() -> None:
    right, wrong = Score(True, {"exact_match": 1.0}), Score(False, {"exact_match": 0.0})
    assert (right.status, right.failure, wrong.failure) == ("scored", None, "wrong_answer")
    for verdict in (right, wrong):
        others = verdict.program_correct, verdict.answer_strict, verdict.answer_lenient
        assert set(others) == {verdict.correct} and verdict.self_consistent
    scrap = Score(False, {"exact_match": 0.0}, "unparseable")
    assert scrap.failure == "unparseable" and not scrap.self_consistent


def code(path: Path) -> str:
    """The file without comments and docstrings, which may mention measurements."""
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
    rooms = [ROOT / "src/posttrain" / room for room in ("tasks", "environments")]
    outside = [path for path in files if not any(path.is_relative_to(room) for room in rooms)]
    known = [*TASKS, *(path.parent.name for path in rooms[1].glob("*/task.py"))]
    names = re.compile(rf"(?<![a-z])({'|'.join(known)})(?![a-z])", re.I)  # `saturated` names none
    assert [str(path) for path in outside if names.search(code(path))] == []

"""The parts of a task are independent, so that a stage depends only on those it uses; and pools of a task without any."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.tasks.others import other_answers

TASKS = ROOT / "src/posttrain/tasks"
# Parts whose modules a part may import.
MAY_USE = {
    "score": set(),
    "prompt": set(),
    "describe": set(),
    "audit": set(),
    "fetch": set(),
    "examples": set(),
    "candidates": {"prompt"},
    "explain": {"score"},
    "calculate": {"score", "prompt"},
    "baselines": set(),
}
PARAMS = load_params(ROOT / "params.yaml")


def imported(path: Path, package: str) -> set[str]:
    """Modules of the package that a file imports, also inside functions."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    modules = {node.module for node in nodes if node.module}
    return {name.removeprefix(package).split(".")[0] for name in modules if package in name}


@pytest.mark.parametrize("task", ["finqa", "gsm8k", "sat"])
@pytest.mark.parametrize("part", MAY_USE)
def test_a_part_imports_no_other_part_without_need(task: str, part: str) -> None:
    waiting, reached = [part], {part}
    while waiting:
        file = TASKS / task / f"{waiting.pop()}.py"
        if file.is_file():
            new = imported(file, f"posttrain.tasks.{task}.") - reached
            reached |= new
            waiting += new
    assert (reached & MAY_USE.keys()) - {part} <= MAY_USE[part]
    assert part == "fetch" or "sample" not in reached


@pytest.mark.parametrize("task", ["finqa", "gsm8k", "sat"])
def test_the_module_of_a_task_only_gathers_its_parts(task: str) -> None:
    body = ast.parse((TASKS / task / "task.py").read_text()).body
    assert {type(node) for node in body[1:]} == {ast.ImportFrom, ast.Assign}  # and __all__


# ------------------------------------------------------------------------------ other answers


def asked(targets: list[str]) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "target": target} for number, target in enumerate(targets)]


def test_without_candidates_the_others_are_answers_to_other_questions() -> None:
    train = asked([str(number % 40) for number in range(200)])
    make = other_answers(PARAMS, train)
    for example in [*train[:50], {"id": "new", "target": "never seen"}]:
        pool = make(example, 8)
        assert len({made.text for made in pool}) == 8
        assert [made.text for made in pool if made.kind == "gold"] == [example["target"]]
        assert make(example, 8) == pool


def test_few_answers_make_small_pools_of_one_size() -> None:
    train = asked(["yes"] * 500 + ["no", "maybe"])
    make = other_answers(PARAMS, train)
    for example in train[-4:]:
        assert sorted(made.text for made in make(example, 8)) == ["maybe", "no", "yes"]
    assert len(make({"id": "new", "target": "never"}, 8)) == 3


def test_one_answer_to_all_questions_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to choose from"):
        other_answers(PARAMS, asked(["yes"] * 9))

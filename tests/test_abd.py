"""Claims about the abduction task: its questions, its scorer, CRUXEval's form, the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from needs import need_sandbox
from ruamel.yaml import YAML
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.params import Params, check_params
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.abd.cruxeval import FILE
from posttrain.tasks.abd.sample import generate
from posttrain.tasks.abd.score import score

TASK = get_task("abd")
SQUARE = {
    "id": "q",
    "question": "n = int(input())\nprint(100 // n)\n",
    "output": "25",
    "input": "4",
}
FIRST = {
    "id": "c",
    "question": "def f(s, n=1):\n    print('noise')\n    return [s[:n]]",
    "output": "['a']",
    "input": "'abc'",
    "call": "f",
}


@pytest.fixture
def _sandbox() -> None:
    need_sandbox()


def params(dataset: str, entry: dict[str, Any]) -> Params:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["dataset"] = dataset
    values["datasets"][dataset] = {**values["datasets"].get(dataset, {}), **entry}
    return check_params(values)


@pytest.mark.usefixtures("_sandbox")
def test_known_inputs_are_right_and_fixed_guesses_are_not() -> None:
    sizes = {"train": 40, "test": 40}
    splits = generate(0, sizes, 3)
    assert splits == generate(0, sizes, 3) != generate(1, sizes, 3)
    assert len({row["question"] for rows in splits.values() for row in rows}) == 80
    rows = splits["test"]
    assert all(found.correct for found in TASK.scores([TASK.target(row) for row in rows], rows))
    assert TASK.baselines is not None
    assert max(TASK.baselines(rows).values()) <= 0.05


@pytest.mark.usefixtures("_sandbox")
def test_any_input_counts_that_gives_the_output_and_others_are_told_apart() -> None:
    for text, correct, valid, form, failure in (
        ("<INPUT>4</INPUT>", True, 1.0, 1.0, None),
        ("<INPUT>\n  4\n</INPUT>\n", True, 1.0, 1.0, None),
        ("First 5: <INPUT>5</INPUT>, no: <INPUT>4</INPUT>.", True, 1.0, 0.0, None),
        ("<INPUT>4</INPUT><INPUT>5</INPUT>", False, 1.0, 0.0, "wrong_answer"),
        ("<INPUT>0</INPUT>", False, 0.0, 1.0, "crash"),
        ("<INPUT></INPUT>", False, 0.0, 1.0, "crash"),
        ("<INPUT>25</INPUT>", False, 1.0, 1.0, "wrong_answer"),
    ):
        found = score(text, SQUARE)
        parts = {"same_output": float(correct), "program_valid": valid, "format_valid": form}
        assert (found.correct, found.parts, found.failure) == (correct, parts, failure), text


@pytest.mark.usefixtures("_sandbox")
def test_arguments_of_a_function_are_literals_and_nothing_else() -> None:
    texts = {
        "'abc'": True,
        "'a', 5": True,
        "'ab', 1,": True,
        "'ab', 2": False,
        "": False,
        "open('x')": False,
        "'abc', n=1": False,
        "'a')) or print(('a',": False,
    }
    found = TASK.scores([f"<INPUT>{text}</INPUT>" for text in texts], [FIRST] * len(texts))
    assert [score.correct for score in found] == [*texts.values()]


@pytest.mark.parametrize("text", ["", "4", "<INPUT>4", "<think><INPUT>4</INPUT>", "x" * 30_000])
def test_an_answer_without_an_input_is_unparseable(text: str) -> None:
    found = score(text, SQUARE)
    assert (found.status, set(found.parts.values())) == ("unparseable", {0.0})


@pytest.mark.usefixtures("_sandbox")
def test_cruxeval_is_a_test_set_beside_generated_training_questions(tmp_path: Path) -> None:
    rows = [
        {"id": "sample_0", "code": "def f(x):\n    return x + 1", "input": "1", "output": "2"},
        {"id": "sample_1", "code": "def f(x):\n    return x + 2", "input": "1", "output": "2"},
    ]
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"task": "abd", "source": "path", "path": str(tmp_path), "repository": "a/b"}
    entry |= {"commit": "0" * 40, "blobs": {}, "train": 6, "val": 2}
    chosen = params("cruxeval", entry)
    TASK.fetch(chosen, tmp_path / "fetch")
    metrics = TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    assert {split: metrics[split]["clean"] for split in SPLITS} == {"train": 6, "val": 2, "test": 1}
    (rejected,) = read_jsonl(tmp_path / "audit/rejected.jsonl")
    assert (rejected["id"], rejected["reason"]) == ("sample_1", "reference_fails")
    (example,) = TASK.examples(chosen, "test", tmp_path / "audit")
    assert TASK.prompt(example).endswith("Output: 2\nAnswer:")
    del entry["val"]
    with pytest.raises(UserError, match=r"datasets\.cruxeval\.val: missing"):
        TASK.fetch(params("cruxeval", entry), tmp_path / "again")

"""Claims about the deduction task: its questions, its scorer, MBPP's form, the audit."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from needs import need_sandbox
from ruamel.yaml import YAML
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.core.params import Params, check_params
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.ded import mbpp
from posttrain.tasks.ded.options import Options
from posttrain.tasks.ded.sample import generate
from posttrain.tasks.ded.score import FAILURES, score
from posttrain.tasks.programs import AFTER, OPERATIONS, Program, draw_inputs
from posttrain.tasks.sandbox import run_all

TASK = get_task("ded")
SIZES = {"train": 60, "val": 5, "test": 40}
DOUBLE = {
    "id": "q",
    "question": "Double it.",
    "shown": [["1", "2"]],
    "hidden": [["3", "6"], ["5", "10"], ["-2", "-4"], ["0", "0"]],
}
CALLED = {
    "id": "c",
    "question": "Double it. The function is double(x).",
    "call": "double",
    "shown": [["(1,)", "2"]],
    "hidden": [["(3,)", "6"], ["([1],)", "[1, 1]"]],
}


@pytest.fixture
def _sandbox() -> None:
    need_sandbox()


@pytest.fixture(scope="module")
def sample() -> dict[str, list[dict[str, Any]]]:
    return generate(0, SIZES, Options())


def block(program: str) -> str:
    return f"```python\n{program}\n```"


def params(dataset: str, entry: dict[str, Any]) -> Params:
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["dataset"] = dataset
    values["datasets"][dataset] = {**values["datasets"].get(dataset, {}), **entry}
    return check_params(values)


# ---------------------------------------------------------------------------- generated questions


def test_the_same_seed_gives_the_same_questions_and_another_seed_others(sample: Any) -> None:
    assert generate(0, SIZES, Options()) == sample
    assert generate(1, SIZES, Options()) != sample


def test_no_program_is_there_twice_and_no_hidden_input_is_shown(sample: Any) -> None:
    rows = [row for split in SPLITS for row in sample[split]]
    assert len({row["program"] for row in rows}) == len(rows) == sum(SIZES.values())
    for row in rows:
        inputs = [given for given, _ in row["shown"] + row["hidden"]]
        assert (len(row["shown"]), len(row["hidden"])) == (2, 4)
        assert len(set(inputs)) == len(inputs)


@pytest.mark.usefixtures("_sandbox")
def test_every_operation_does_in_python_what_it_says() -> None:
    """The outputs come from the functions of the steps, and the programs from their code: they must agree."""
    jobs, expected = [], []
    for step in OPERATIONS:
        for k in {step.numbers[0], step.numbers[-1]}:
            program = Program(step.source, ((step, k),))
            inputs = draw_inputs(step.source, 3, Random(step.code))
            jobs.append((program.text, inputs))
            expected.append([f"{program.output(line)}\n" for line in inputs])
    found = run_all(jobs)
    assert [[result.stdout for result in results] for results in found] == expected
    assert {step.source for step in OPERATIONS} == set(AFTER)


@pytest.mark.usefixtures("_sandbox")
def test_the_reference_is_right_and_a_fixed_guess_is_not(sample: Any) -> None:
    rows = sample["test"]
    scores = TASK.scores([TASK.target(row) for row in rows], rows)
    assert all(score.correct and set(score.parts.values()) == {1.0} for score in scores)
    assert TASK.baselines is not None
    assert max(TASK.baselines(rows).values()) <= 0.05


# ---------------------------------------------------------------------------- the scorer


@pytest.mark.usefixtures("_sandbox")
@pytest.mark.parametrize(
    ("program", "share", "failure"),
    [
        ("print(2 * int(input()))", 1, None),
        ("n = int(input())\nprint(f'  {2 * n}'.strip() + '  \\n\\n')", 1, None),
        ("print(6)", 0.25, "wrong_answer"),
        ("print(2)", 0, "wrong_answer"),  # the shown output
        ("print(abs(2 * int(input())))", 0.75, "wrong_answer"),
        ("print(2 * int(input())); raise SystemExit(1)", 0, "crash"),
        ("raise SystemExit(0)", 0, "wrong_answer"),
        ("n = int(input())\nprint(2 * n if n > 0 else 1 / 0 * n)", 0.5, "crash"),
        ("print(2 * int(input()), int(input()))", 0, "crash"),
        ("print(2 * int(input())\n", 0, "syntax_error"),
        ("n = int(input())\nprint(2 * n)\nwhile n < 0: pass", 0.5, "timeout"),
        ("x = bytearray(1 << 31)", 0, "memory"),
        ("while True: print('x' * 999)", 0, "output_limit"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", 0, "not_text"),
    ],
)
def test_programs_are_told_apart(program: str, share: float, failure: str | None) -> None:
    found = score(block(program), DOUBLE)
    assert (found.parts["share_of_cases"], found.failure) == (share, failure)
    assert found.status == "scored"
    assert found.correct == (share == 1) == (found.parts["all_cases"] == 1)
    assert found.parts["program_valid"] == float(failure in (None, "wrong_answer"))


@pytest.mark.usefixtures("_sandbox")
def test_the_last_block_counts_and_the_form_is_a_part_of_its_own() -> None:
    right, wrong = block("print(2 * int(input()))"), block("print(1)")
    for text, correct, form in (
        (right, True, 1.0),
        (f"{right}\n", True, 1.0),
        (f"Here it is:\n{right}", True, 0.0),
        (f"{wrong}\n{right}", True, 0.0),
        (f"{right}\n{wrong}", False, 0.0),
        (f"<think>{wrong}</think>\n{right}", True, 0.0),
    ):
        found = score(text, DOUBLE)
        assert (found.correct, found.parts["format_valid"]) == (correct, form), text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "print(2)",
        "```\nprint(2)\n```",
        "```python\nprint(2)",
        f"<think>{block('print(2)')}",
        "x" * 30_000,
    ],
)
def test_an_answer_without_a_block_is_unparseable_and_starts_nothing(text: str) -> None:
    found = score(text, DOUBLE)
    assert (found.status, found.correct, set(found.parts.values())) == ("unparseable", False, {0.0})


def test_an_example_without_hidden_cases_is_unscorable_never_right() -> None:
    found = score(block("print(2)"), {**DOUBLE, "hidden": []})
    assert (found.status, found.correct, found.failure) == ("unscorable", False, "unscorable")


def test_an_example_without_its_cases_is_told() -> None:
    with pytest.raises(UserError, match="example 'q' has no field 'hidden'"):
        score("", {"id": "q", "shown": []})


@pytest.mark.usefixtures("_sandbox")
def test_many_answers_score_as_each_alone() -> None:
    texts = [block("print(2 * int(input()))"), "no block", block("print(6)"), block("print(6)")]
    texts += [block("def double(x): return x * 2"), block("print('[1, 1]'); raise SystemExit")]
    examples = [DOUBLE] * 4 + [CALLED] * 2
    alone = [score(text, example) for text, example in zip(texts, examples, strict=True)]
    assert TASK.scores(texts, examples) == alone
    assert [found.correct for found in alone] == [True, False, False, False, True, False]
    assert {found.failure for found in alone} <= {None, *FAILURES}


# ---------------------------------------------------------------------------- MBPP


def mbpp_row(number: int, tests: str, **changes: str) -> dict[str, str]:
    return {
        "task_id": f"MBPP/{number}",
        "prompt": '\n\ndef first(s, n):\n    """\n    Write a function to get the first\n    n.\n    >>> first("ab", 1)\n'
        '    "a"\n    """\n',
        "canonical_solution": "    return s[:n]",
        "entry_point": "first",
        "test": f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n{tests}\n",
        **changes,
    }


TESTS = '    assert candidate("abc", 1) == "a"\n    assert candidate([1, 2], 1) == ([1])'


def test_a_row_of_mbpp_becomes_a_question_with_one_shown_case() -> None:
    assert mbpp.convert(mbpp_row(11, TESTS)) == {
        "id": "MBPP/11",
        "question": "Write a function to get the first n. The function is first(s, n).",
        "program": "def first(s, n):\n    return s[:n]",
        "call": "first",
        "shown": [["('abc', 1)", "'a'"]],
        "hidden": [["([1, 2], 1)", "[1]"]],
    }


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("    pass", "fewer than two cases"),
        ("    assert candidate(1) == 1", "fewer than two cases"),
        (f"{TESTS}\n    assert candidate(1) == set([1])", "no literals"),
        (f"{TESTS}\n    assert candidate(1)", "no comparison"),
        (f"{TESTS}\n    assert candidate(1) == 1 == 1", "no comparison"),
        ("    assert (", "cannot be read"),
    ],
)
def test_what_cannot_be_converted_says_why(tests: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        mbpp.convert(mbpp_row(11, tests))


@pytest.mark.usefixtures("_sandbox")
def test_mbpp_from_a_folder_is_audited_and_split(tmp_path: Path) -> None:
    rows = [mbpp_row(number, TESTS) for number in (1, 11, 510, 511, 512)]
    for number, row in enumerate(rows):
        row["prompt"] = row["prompt"].replace("get the", f"get, {number}, the")
    rows.append(mbpp_row(600, TESTS, canonical_solution="    return s[n:]"))
    rows.append(mbpp_row(601, "    pass"))
    rows.append({**rows[1], "task_id": "MBPP/700"})
    (tmp_path / mbpp.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"task": "ded", "source": "path", "path": str(tmp_path), "repository": "a/b"}
    chosen = params("mbpp", {**entry, "commit": "0" * 40, "blobs": {}, "val": 1})
    TASK.fetch(chosen, tmp_path / "fetch")
    metrics = TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    assert (metrics["train"]["clean"], metrics["test"]["clean"]) == (3, 2)
    assert {row["id"]: row["reason"] for row in read_jsonl(tmp_path / "audit/rejected.jsonl")} == {
        "MBPP/600": "reference_fails",
        "MBPP/601": "not_convertible",
        "MBPP/700": "duplicate_question",
    }
    ids = {
        split: {row["id"] for row in TASK.examples(chosen, split, tmp_path / "audit")}
        for split in SPLITS
    }
    assert ids["test"] == {"MBPP/11", "MBPP/510"}
    assert len(ids["val"]) == 1 and ids["train"] | ids["val"] == {"MBPP/1", "MBPP/511", "MBPP/512"}


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    row = mbpp_row(11, TESTS)
    del row["test"]
    (tmp_path / mbpp.FILE).write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="row 0: field 'test' must be a string"):
        list(mbpp.iterate_rows(tmp_path / mbpp.FILE))


# ---------------------------------------------------------------------------- stages


@pytest.mark.usefixtures("_sandbox")
def test_the_generated_set_passes_its_audit(tmp_path: Path) -> None:
    chosen = params("ded-sample", {"train": 8, "val": 2, "test": 4})
    TASK.fetch(chosen, tmp_path / "fetch")
    metrics = TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    assert {split: metrics[split]["clean"] for split in SPLITS} == {"train": 8, "val": 2, "test": 4}
    (first, *_) = TASK.examples(chosen, "test", tmp_path / "audit")
    assert TASK.prompt(first).endswith(f"Output: {first['shown'][1][1]}\nAnswer:")
    assert not any(output in TASK.prompt(first) for _, output in first["hidden"] if len(output) > 4)
    assert TASK.measure([first])["hidden_cases_mean"] == 4
    assert TASK.explain(first, "text").answer == "text"


def test_an_option_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.ded-sample\.options: hidden: "):
        TASK.fetch(params("ded-sample", {"options": {"hidden": 0}}), tmp_path / "fetch")

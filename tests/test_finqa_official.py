"""The FinQA paper's verdicts, and the command that scores a predictions file."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.tasks.finqa.evaluate import evaluate, main, read_predictions, read_split
from posttrain.tasks.finqa.official import (
    equal_to_gold,
    execute_tokens,
    official_verdict,
    tokenize,
)
from posttrain.tasks.finqa.program import OPERATIONS, parse

TABLE = [["", "2009", "2008"], ["b", "1", "2"], ["c", "$ 3", "4 ( 4 )"]]
GOLD = "subtract(5, 3), divide(#0, 3)"


def equal(gold: str, predicted: str) -> bool:
    """The program verdict, which may not depend on the table or the answer."""
    return official_verdict(tokenize(predicted), gold, 0.5, TABLE)[1]


def test_every_oracle_row_has_the_official_verdicts(oracle_path: Path, finqa_dir: Path) -> None:
    rows = {row["id"]: row for row in json.loads((finqa_dir / "dev.json").read_text())}
    count = 0
    for line in oracle_path.read_text().splitlines():
        expected = json.loads(line)
        row = rows[expected["id"]]
        tokens, table, qa = expected["predicted"], row["table"], row["qa"]
        assert official_verdict(tokens, qa["program"], qa["exe_ans"], table) == (
            expected["exe_correct"],
            expected["prog_correct"],
        ), expected
        assert execute_tokens(tokens, table) == (
            bool(expected["exe_invalid"]),
            expected["exe_result"],
        ), expected
        count += 1
    assert count == 4000


def test_every_gold_program_is_program_correct(finqa_dir: Path) -> None:
    for split in ("train", "dev", "test"):
        for row in json.loads((finqa_dir / f"{split}.json").read_text()):
            program = row["qa"]["program"]
            tokens = tokenize(program)
            assert official_verdict(tokens, program, row["qa"]["exe_ans"], row["table"])[1]
            assert equal_to_gold(parse(program), program)


def test_tokens_split_at_parentheses_and_comma_space() -> None:
    assert tokenize("add(1, 2), exp(#0, 1,5)") == (
        ["add(", "1", "2", ")", "exp(", "#0", "1,5", ")", "EOF"]
    )
    assert tokenize("table_sum(a (b), none)") == (
        ["table_sum(", "a (", "b", ")", "none", ")", "EOF"]
    )


def test_the_answer_must_have_the_five_decimals() -> None:
    tokens = ["divide(", "1", "3", ")", "EOF"]
    assert official_verdict(tokens, "divide(1, 3)", 0.33333, TABLE) == (True, True)
    assert official_verdict(tokens, "divide(1, 3)", 0.3333, TABLE) == (False, True)
    assert official_verdict(tokens, "divide(1, 3)", "0.33333", TABLE) == (False, True)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["add(", "1", "2", ")", "EOF"], (False, 3.0)),
        (["add(", "1", "2", ")"], (False, "n/a")),  # the last token goes unread: no step is left
        ([], (False, "n/a")),
        (["EOF"], (False, "n/a")),
        (["add(", "1", "2", ")", "add(", "EOF"], (False, 3.0)),  # a step cut off is no step
        (["add(", "1", "2", "EOF"], (False, "n/a")),
        (["add", "1", "2", ")", "EOF"], (True, None)),
        (["(add", "1", "2", ")", "EOF"], (False, "n/a")),  # the operation "" does nothing
        (["add(", "1|5", "2", ")", "EOF"], (False, 6.0)),  # operands are split at "|": 1 and 5
        (["add(", "1", "", ")", "EOF"], (True, None)),
        (["add(", "1", "2", ")", "add(", "-#0", "1", ")", "EOF"], (False, 4.0)),
        (["add(", "#0", "2", ")", "EOF"], (True, None)),
        (["add(", "1e5", "1_000", ")", "EOF"], (False, 101000.0)),
        (["add(", "const_1", "xconst_1", ")", "EOF"], (True, None)),
        (["table_sum(", "c", "none", ")", "EOF"], (False, 7.0)),
        (["table_sum(", " ", "none", ")", "EOF"], (False, 4017.0)),
        (["add(", 1, "2", ")", "EOF"], (True, None)),
        (["add(", ["1"], "2", ")", "EOF"], (True, None)),
        ([None], (False, "n/a")),
        (None, (True, None)),
        ({"add(": 1}, (True, None)),
        (5, (True, None)),
    ],
)
def test_odd_tokens_execute_as_in_the_script(tokens: Any, expected: tuple[bool, Any]) -> None:
    assert execute_tokens(tokens, TABLE) == expected


def test_infinite_and_undefined_results_are_valid_but_nan_is_never_right() -> None:
    invalid, result = execute_tokens(["add(", "nan", "1", ")", "EOF"], TABLE)
    assert not invalid and result != result
    assert official_verdict(["add(", "nan", "1", ")", "EOF"], GOLD, float("nan"), TABLE)[0] is False
    assert execute_tokens(["add(", "inf", "1", ")", "EOF"], TABLE) == (False, float("inf"))


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        (GOLD, GOLD, True),
        ("add(1, 2)", "add(2, 1)", True),
        ("subtract(1, 2)", "subtract(2, 1)", False),
        ("add(5829, 1)", "add(5829.0, 1)", False),
        ("multiply(3%, 2)", "multiply(0.03, 2)", False),
        ("divide(1, 2)", "divide(1, 3)", False),
        ("add(1, 2)", "subtract(2, 1), add(1, 2)", True),
        ("add(1, 2), subtract(#0, 1)", "add(2, 1), subtract(#0, 1)", True),
        ("add(1, 2), add(#0, 3)", "add(3, 2), add(1, #0)", True),
        ("subtract(1, 2), add(#0, 3)", "add(1, 3), subtract(#0, 2)", True),
        ("add(1, 2), subtract(#0, 2)", "subtract(1, 2), add(#0, 2)", True),
        ("exp(2, 3)", "exp(3, 2)", False),
        ("exp(2, 3)", "multiply(2, 2), multiply(#0, 2)", False),
        ("greater(1, 2)", "greater(1, 2)", True),
        ("greater(1, 2)", "greater(2, 1)", False),
        ("greater(1, 2)", "subtract(1, 2)", False),
        ("table_sum(b, none)", "table_sum(b, none)", True),
        ("table_sum(b, none)", "table_sum(b, b)", False),
        ("table_sum(b, none)", "add(1, 2), table_sum(b, none)", False),
        ("divide(1, 0)", "divide(1, 0)", True),
        ("divide(1, 2)", "subtract(2, 2), divide(1, #0)", False),
        ("subtract(2, 2), divide(1, #0)", "subtract(1, 1), divide(2, #0)", False),
        (GOLD, "subtract(5, 3), divide(#-1, 3)", False),
        (GOLD, "divide(#1, 3)", False),
        (GOLD, "", False),
    ],
)
def test_program_equality_is_symbolic(gold: str, predicted: str, expected: bool) -> None:
    assert equal(gold, predicted) is expected


def test_nothing_equals_a_gold_program_that_the_script_cannot_read() -> None:
    for gold in (
        "",
        "add(1)",
        "table_sum(a (b), none)",
        "add(#0, 1)",
        "add(#5, 1)",
        "greater(1, 2), add(#0, 1)",
        "subtract(1, 1), divide(1, #0), greater(#1, 1)",
        chain(200),
    ):
        assert not equal(gold, gold)
    assert official_verdict(tokenize("add(1, 2)"), None, 3.0, TABLE) == (True, False)  # type: ignore[arg-type]


def chain(steps: int, last: str = "") -> str:
    return ", ".join(["add(1, 2)", *(f"add(#{k}, 1)" for k in range(steps - 1))]) + last


def test_sympy_reads_199_levels_and_no_more() -> None:
    assert equal(chain(199), chain(199))
    assert not equal(chain(199), chain(200, ", subtract(#199, 1)"))


@pytest.mark.parametrize("op", ["add", "multiply", "divide", "exp", "greater", "subtract"])
def test_equality_ends_soon_for_ten_thousand_steps(op: str) -> None:
    program = ", ".join([f"{op}(1, 2)", *(f"{op}(#{k}, #{k})" for k in range(9_999))])
    nearly = program.replace("(1, 2)", "(2, 1)", 1)
    start = time.perf_counter()
    assert not equal(program, nearly)
    assert not equal("add(1, 2)", program)
    assert time.perf_counter() - start < 5


names = st.sampled_from(["1", "2", "3", "#0", "#1", "b"])
steps = st.tuples(st.sampled_from(OPERATIONS), names, names)
programs = st.lists(steps, min_size=1, max_size=4).map(
    lambda found: ", ".join(f"{op}({arg1}, {arg2})" for op, arg1, arg2 in found)
)


literals = st.sampled_from(["1", "2", "3"])


@given(st.sampled_from(["add", "subtract", "divide", "exp", "greater"]), literals, literals)
def test_a_dead_step_changes_nothing_if_its_operands_are_the_gold_programs(
    op: str, arg1: str, arg2: str
) -> None:
    program = f"{op}({arg1}, {arg2})"
    assert equal(program, "add(1, 2), " + program) is ({"1", "2"} <= {arg1, arg2})


@settings(deadline=None)  # the first pair that needs it imports sympy
@given(programs, programs)
def test_arithmetic_equality_is_symmetric_when_both_use_the_same_operands(
    one: str, two: str
) -> None:
    if "table" in one + two or not equal(one, one) or not equal(two, two):
        return
    if set(tokenize(one)) == set(tokenize(two)):
        assert equal(one, two) == equal(two, one)


junk = st.one_of(
    st.sampled_from(["add(", "table_sum(", ")", "(", "|", "#0", "1", "b", "EOF", "2)add(|1|2"]),
    st.text(max_size=4),
    st.none(),
    st.integers(),
)


@settings(deadline=None)
@given(st.lists(junk, max_size=12))
def test_any_tokens_get_verdicts(tokens: list[Any]) -> None:
    execution, program = official_verdict(tokens, GOLD, 0.66667, TABLE)
    assert isinstance(execution, bool) and isinstance(program, bool)


SPLIT = [
    {"id": "a", "table": TABLE, "qa": {"program": "add(1, 2)", "exe_ans": 3.0}},
    {"id": "b", "table": TABLE, "qa": {"program": "divide(1, 2)", "exe_ans": 0.5}},
    {"id": "c", "table": TABLE, "qa": {"program": "greater(1, 2)", "exe_ans": "no"}},
    {"id": "d", "table": TABLE, "qa": {"program": "table_max(b, none)", "exe_ans": 2.0}},
]
PREDICTIONS = [
    {"id": "a", "predicted": tokenize("subtract(4, 1)")},
    {"id": "c", "predicted": tokenize("greater(1, 2)")},
]


def write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_missing_predictions_are_wrong_over_the_split() -> None:
    result = evaluate(PREDICTIONS, SPLIT)
    assert (result["execution_accuracy"], result["program_accuracy"]) == (1.0, 0.5)
    assert (result["execution_accuracy_split"], result["program_accuracy_split"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    "failed",
    [
        {},
        *({"predicted": value} for value in (None, 5, True, [], "", "add(1, 2)", {}, [None], [[]])),
    ],
)
def test_a_prediction_without_tokens_is_wrong_and_the_others_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], failed: dict[str, Any]
) -> None:
    rows = [*PREDICTIONS, {"id": "b", **failed}, {"id": "d", "predicted": None}]
    files = [write(tmp_path / "p.json", rows), write(tmp_path / "s.json", SPLIT)]
    assert main([*files, "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["predictions"], result["execution_correct"], result["program_correct"]) == (
        (4, 2, 1)
    )
    assert (result["execution_accuracy"], result["program_accuracy_split"]) == (0.5, 0.25)
    count = 1 + (not isinstance(failed.get("predicted"), list))
    assert result["without_tokens"] == count
    assert f"{count} of 4 predictions are no list of tokens" in printed.err


def test_predictions_that_all_failed_have_the_accuracy_zero(tmp_path: Path) -> None:
    rows = [{"id": "a", "predicted": None}, {"id": "b"}]
    result = evaluate(read_predictions(write(tmp_path / "p.json", rows)), SPLIT)
    assert result["execution_accuracy"] == result["program_accuracy_split"] == 0.0


def test_no_predictions_have_no_accuracy_but_the_split_has_one() -> None:
    result = evaluate([], SPLIT)
    assert result["execution_accuracy"] is None
    assert result["execution_accuracy_split"] == 0.0


def test_the_command_prints_the_accuracies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / "p.json", PREDICTIONS), write(tmp_path / "s.json", SPLIT)]
    assert main(files) == 0
    printed = capsys.readouterr().out
    assert "100.0000%" in printed and "25.0000%" in printed
    assert main([*files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["execution_correct"] == 2


@pytest.mark.parametrize(
    ("predictions", "split", "words"),
    [
        ('[{"id": "a", "pred', SPLIT, "not valid JSON"),
        ("[" * 100_000, SPLIT, "nested too deeply"),
        ('[{"id": "a", "id": "b", "predicted": []}]', SPLIT, "row 0: an object has the key 'id'"),
        ('[{"id": "a", "predicted": [' + "9" * 5000, SPLIT, "row 0: a number has more than 4300"),
        ('[{"id": "\\ud800", "predicted": []}]', SPLIT, "id '\\ud800' is not in the split"),
        (PREDICTIONS, "", "not valid JSON"),
        ({"a": 1}, SPLIT, "expected a list"),
        ([5], SPLIT, "row 0: expected an object"),
        ([{"predicted": []}], SPLIT, "row 0: missing field id"),
        ([{"id": "a"}], SPLIT, "row 0: missing field predicted"),
        ([{"id": ["a"], "predicted": []}], SPLIT, "id is not text"),
        ([{"id": "a", "predicted": "add(1, 2)"}], SPLIT, "not a list of tokens"),
        (PREDICTIONS + PREDICTIONS[:1], SPLIT, "row 2: duplicate id 'a'"),
        ([{"id": "z", "predicted": []}], SPLIT, "'z' is not in the split"),
        (PREDICTIONS, SPLIT + SPLIT[:1], "row 4: duplicate id 'a'"),
        (
            PREDICTIONS,
            [{"id": "a", "table": [], "qa": {"program": ""}}],
            "missing field qa.exe_ans",
        ),
        (PREDICTIONS, [{"id": "a", "qa": {}}], "missing field table"),
        (PREDICTIONS, [], "no rows"),
    ],
)
def test_bad_files_end_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], predictions: Any, split: Any, words: str
) -> None:
    files = [write(tmp_path / "p.json", predictions), write(tmp_path / "s.json", split)]
    assert main(files) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("token", ["\ud800", "\0", "9" * 5000, float("nan"), None, [], 10**400])
def test_a_prediction_of_strange_tokens_is_wrong(token: Any, tmp_path: Path) -> None:
    prediction = {"id": "a", "predicted": ["add(", token, "2", ")", "EOF"]}
    path = write(tmp_path / "p.json", "\ufeff" + json.dumps([prediction]))
    result = evaluate(read_predictions(path), SPLIT)
    assert (result["execution_correct"], result["program_correct"]) == (0, 0)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"absent\.json"):
        read_predictions("absent.json")
    with pytest.raises(UserError, match=r"absent\.json"):
        read_split("absent.json")


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    files = [write(tmp_path / "p.json", PREDICTIONS), write(tmp_path / "s.json", [])]
    command = [sys.executable, "-m", "posttrain.tasks.finqa.evaluate", *files]
    source = Path(__file__).resolve().parent.parent / "src"
    result = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(source)}
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "no rows" in result.stderr

"""The scorer of FinQA's answers, on any text."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.tasks import get_task
from posttrain.tasks.finqa.official import official_verdict, tokenize
from posttrain.tasks.finqa.program import format_answer
from posttrain.tasks.finqa.score import FAILURES, PARTS, FinqaScore, score
from posttrain.tasks.reward import reward

TASK = get_task("finqa")
TABLE = [["", "2009", "2008"], ["net revenue", "5829", "5735"], ["loss (net)", "1", "2"]]
REFERENCES = {
    "A2": "net revenue",
    "B2": "5829",
    "C2": "5735",
    "A3": "loss (net)",
    "B3": "1",
    "C3": "2",
    "T1": "5735",
}
LITERAL: dict[str, Any] = {
    "id": "toy/1",
    "literal_program": "subtract(5829, 5735), divide(#0, 5735)",
    "exe_ans": 0.01639,
    "table": TABLE,
    "references": REFERENCES,
    "operands": "literal",
    "tolerance": 0.01,
}
CELLS = {**LITERAL, "operands": "cells"}
YES = {**LITERAL, "literal_program": "greater(5829, 5735)", "exe_ans": "yes"}


def answer(program: str, stated: str) -> str:
    steps = program.replace("), ", ")\n").split("\n")
    return json.dumps({"program": steps, "answer": stated})


def judge(text: str, example: dict[str, Any] = LITERAL) -> FinqaScore:
    return score(text, example)


GOLD = answer("subtract(5829, 5735), divide(#0, 5735)", "0.01639")


def test_the_gold_answer_has_everything_right() -> None:
    found = judge(GOLD)
    assert found.parts == dict.fromkeys(PARTS, 1.0)
    assert (found.status, found.failure, found.value, found.answer) == (
        ("scored", None, 0.01639, 0.01639)
    )
    assert found.correct and found.program_correct
    assert found.answer_strict and found.answer_lenient and found.self_consistent


@pytest.mark.parametrize(
    ("cells", "literal"),
    [
        ("subtract(B2, C2), divide(#0, C2)", "subtract(5829, 5735), divide(#0, 5735)"),
        ("subtract(B2, T1), divide(#0, C2)", "subtract(5829, 5735), divide(#0, 5735)"),
        ("subtract(C2, B2), divide(#0, C2)", "subtract(5735, 5829), divide(#0, 5735)"),
        ("table_sum(A2, none)", "table_sum(net revenue, none)"),
        ("table_sum(A3, none)", "table_sum(loss (net), none)"),
        ("divide(B2, const_100)", "divide(5829, const_100)"),
        ("divide(B2", "divide(5829"),
    ],
)
def test_cells_and_literals_of_one_program_get_one_score(cells: str, literal: str) -> None:
    assert judge(answer(cells, "1"), CELLS) == judge(answer(literal, "1"), LITERAL)


@pytest.mark.parametrize(
    ("text", "example", "failure"),
    [
        ("no object here", LITERAL, "unparseable"),
        (answer("sum(1, 2)", "3"), LITERAL, "invalid_program"),
        (answer("", "3"), LITERAL, "invalid_program"),
        ('{"program": [], "answer": "3"}', LITERAL, "invalid_program"),
        (answer("subtract(B9, C2)", "94"), CELLS, "unknown_reference"),
        (answer("table_sum(A9, none)", "94"), CELLS, "unknown_reference"),
        (answer("subtract(B2, C2)", "94"), LITERAL, "execution_error"),
        (answer("divide(1, 0)", "94"), LITERAL, "execution_error"),
        (answer("add(inf, 1)", "94"), LITERAL, "execution_error"),
        (answer("subtract(5829, 5735)", "94"), LITERAL, "wrong_program"),
        (answer("subtract(5829, 5735)", "0.01639"), LITERAL, "wrong_program"),
        (answer("subtract(5829, 5735), divide(#0, 5735)", "0.0164"), LITERAL, "wrong_answer_only"),
        (GOLD, {**LITERAL, "exe_ans": 0.5}, "unscorable"),
        (GOLD, {**LITERAL, "exe_ans": None}, "unscorable"),
        (GOLD, {**LITERAL, "literal_program": "divide(1, 0)"}, "unscorable"),
        (GOLD, {**LITERAL, "literal_program": ["add(1, 2)"]}, "unscorable"),
        (GOLD, {**LITERAL, "table": None, "literal_program": "table_sum(a, b)"}, "unscorable"),
    ],
)
def test_each_failure_has_its_class(text: str, example: dict[str, Any], failure: str) -> None:
    found = judge(text, example)
    assert found.failure == failure
    assert failure in FAILURES
    assert found.status == (failure if failure in ("unparseable", "unscorable") else "scored")


def test_a_right_value_by_another_program_is_execution_correct_only() -> None:
    found = judge(answer("divide(5829, 5735), subtract(#0, const_1)", "0.01639"))
    assert (found.correct, found.program_correct) == (True, False)
    assert found.failure is None


def test_an_infinite_value_is_no_value() -> None:
    found = judge(answer("add(1e999, 1)", "inf"))
    assert (found.value, found.parts["program_valid"]) == (None, 0.0)


@pytest.mark.parametrize(
    ("stated", "close", "strict", "lenient"),
    [
        ("0.01639", 1, True, True),
        ("0.016390", 1, True, True),
        ("$ 0.01639", 1, True, True),
        ("0.0164", 1, False, True),
        ("0.0165", 1, False, False),
        ("1.639", 0, False, True),
        ("1.64%", 1, False, True),
        ("1.639%", 1, True, True),
        ("1.64", 0, False, True),
        ("2%", 0, False, False),
        ("-0.01639", 0, False, False),
        ("−0.01639", 0, False, False),
        ("1.639％", 1, True, True),
        ("0,01639", 0, False, False),
        ("-1.64%", 0, False, False),
        ("0", 0, False, False),
        ("0.17", 0, False, False),
        ("yes", 0, False, False),
        ("about 0.01639", 0, False, False),
        ("nan", 0, False, False),
    ],
)
def test_stated_answers(stated: str, close: float, strict: bool, lenient: bool) -> None:
    found = judge(answer("subtract(5829, 5735), divide(#0, 5735)", stated))
    assert (found.parts["numeric_close"], found.answer_strict, found.answer_lenient) == (
        (close, strict, lenient)
    )


def test_yes_is_yes_and_nothing_else() -> None:
    assert judge(answer("greater(5829, 5735)", "Yes"), YES).failure is None
    wrong = judge(answer("greater(5829, 5735)", "no"), YES)
    assert wrong.parts["numeric_close"] == 0.0 and not wrong.self_consistent
    assert not judge(answer("add(1, 2)", "1"), YES).correct


def test_self_consistency_is_about_the_own_program() -> None:
    found = judge(answer("subtract(5829, 5735)", "94"))
    assert found.self_consistent and not found.answer_strict
    assert not judge(answer("divide(1, 0)", "94")).self_consistent


@pytest.mark.parametrize(
    "text",
    [
        "```json\n" + GOLD + "\n```",
        "The answer is {bold}: " + GOLD + " and {",
        '{"program": "subtract(5829, 5735), divide(#0, 5735)", "answer": "0.01639"}',
        GOLD.replace('"0.01639"', "0.01639"),
        GOLD.replace("}", ', "note": ""}'),
        GOLD.replace("{", '{"answer": "5", '),
        "[" + GOLD + "]",
    ],
)
def test_another_form_costs_the_form_only(text: str) -> None:
    found = judge(text)
    assert found.parts == {**dict.fromkeys(PARTS, 1.0), "format_valid": 0.0}
    assert found.failure is None


@pytest.mark.parametrize(
    "text",
    [
        'Cells: {"B2": 5829, "C2": 5735}\n' + GOLD,
        "Use {} as a start, or {'program': 1}.\n" + GOLD,
        '{"result": ' + GOLD + "}",
        '{"a": [{"b": {"c": [[], {}, [' + GOLD + "]]}}]}",
        '{"program": null, "data": ' + GOLD + "}",
        '{"program": {"steps": []}} ' + GOLD,
        "".join(rf"\frac{{{n}}}{{2}} " for n in range(1000)) + GOLD,
        '{"step": "x", } ' * 1000 + GOLD,
        '{"step": "x ' * 5 + GOLD,
        '{"answer: ' + GOLD,
        '{"draft": ' + GOLD + ", and so on",
        '{"a": "{", "b": "}}{"} ' + GOLD,
        "```json\n" + GOLD + "\n```\nIt {grew}.",
        GOLD + ' {"program": ["add(1, 2)"], "answer": "3"}',
        GOLD[:-1] + ', "why": {"program": ["add(1, 2)"], "answer": "3"}}',
        '{"a": ' * 400 + GOLD + "}" * 400,
        "{" * 100_000 + GOLD,
        "{ " * 100_000 + GOLD,
        "{} " * 100_000 + GOLD,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_the_first_object_with_a_program_is_the_answer_wherever_it_stands(text: str) -> None:
    start = time.process_time()
    found = judge(text)
    assert found.failure is None
    assert found.parts == {**dict.fromkeys(PARTS, 1.0), "format_valid": 0.0}
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        '{"' * 200_000,
        '{"a":1,' * 100_000,
        '{"a":[{},' * 100_000,
        '{"a":[' * 300 + "{}," * 200_000,
        '{"a":' * 900 + '"' + "x" * 500_000,
        '{"a\\"' * 100_000,
        '{"a":"' + '\\"{\\"' * 100_000,
        "<think>" * 100_000,
        "</think>" * 100_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_broken_objects_of_any_number_are_read_soon(text: str) -> None:
    start = time.process_time()
    assert judge(text).status == "unparseable"
    assert time.process_time() - start < 5


def test_thoughts_are_no_part_of_an_answer() -> None:
    draft = answer("add(1, 2)", "3")
    for start in ("<think>", "<thinking>", ""):
        end = "</thinking>" if start == "<thinking>" else "</think>"
        assert judge(f"{start}So {draft}?{end}\n\n{GOLD}") == judge(GOLD)
    assert judge(f"<think>{GOLD}").status == "unparseable"
    assert judge(f"<think>{GOLD}</think>").status == "unparseable"
    assert judge(f"<think>{draft}</think>{GOLD}<think>{draft}") == judge(GOLD)


def test_spaces_around_and_inside_the_object_are_its_form() -> None:
    spaced = '\n { "program": ["subtract(5829, 5735)" ,"divide(#0, 5735)"],\t"answer": "0.01639"} '
    assert judge(spaced).parts["format_valid"] == 1.0


def test_a_missing_answer_leaves_the_program_scored() -> None:
    found = judge('{"program": ["subtract(5829, 5735)", "divide(#0, 5735)"]}')
    assert (found.status, found.failure, found.answer) == ("scored", "wrong_answer_only", None)
    assert found.parts["exact_match"] == 1.0 and found.parts["format_valid"] == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"answer": "0.01639"}',
        '{"program": 5, "answer": "1"}',
        '{"program": [5], "answer": "1"}',
        '{"program": {"a": 1}, "answer": "1"}',
        GOLD[:-5],
        "[" * 100_000,
        '{"program":' * 50_000,
        "{" * 1_000_000,
        " " * 2_000_000,
        b"\xff\xfe",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_texts_without_the_object_are_unparseable_not_wrong(text: Any) -> None:
    start = time.perf_counter()
    found = judge(text)
    assert found.status == "unparseable"
    assert found.parts == dict.fromkeys(PARTS, 0.0)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "9" * 5000, "1e999", "true"])
def test_hostile_numbers_are_scored_as_wrong_answers(number: str) -> None:
    found = judge(GOLD.replace('"0.01639"', number))
    assert found.parts == (
        {"exact_match": 1.0, "numeric_close": 0.0, "program_valid": 1.0, "format_valid": 0.0}
    )


def test_ten_thousand_steps_are_scored_soon() -> None:
    start = time.perf_counter()
    for op in ("add", "exp", "multiply"):
        steps = [f"{op}(5829, 5735)", *(f"{op}(#{k}, #{k})" for k in range(9_999))]
        assert not judge(json.dumps({"program": steps, "answer": "1"})).correct
    assert time.perf_counter() - start < 5


def test_an_example_without_a_field_is_the_users_error() -> None:
    with pytest.raises(UserError, match="'toy/1' has no field 'table'"):
        judge(GOLD, {key: value for key, value in LITERAL.items() if key != "table"})


def test_the_reward_is_the_weighted_mean() -> None:
    parts = {"exact_match": 1.0, "numeric_close": 0.0, "format_valid": 1.0}
    weights = {"exact_match": 2.0, "numeric_close": 1.0, "format_valid": 1.0}
    assert reward(parts, weights) == 0.75


def test_weights_of_parts_that_the_task_does_not_offer_are_left_out() -> None:
    assert reward({"satisfied": 0.5}, {"exact_match": 1.0, "satisfied": 2.0}) == 0.5


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({"exact": 1}, "reward.weights: no weight for 'exact_match', a part of this task's reward"),
        ({"exact_match": 0}, "reward.weights: at least one of exact_match must be above 0"),
        ({"exact_match": -1}, "reward weight exact_match must be a number of 0 or more"),
    ],
)
def test_impossible_weights_are_one_line(weights: dict[str, float], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        reward({"exact_match": 1.0}, weights)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gets_a_score_with_parts_of_zero_or_one(text: str) -> None:
    for prepared in (text, answer(text, text), '{"program": ' + text):
        found = judge(prepared, CELLS)
        assert set(found.parts.values()) <= {0.0, 1.0}
        assert found.failure in FAILURES


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_calculated_answer_states_what_its_program_gives_and_has_the_same_verdicts(
    text: str,
) -> None:
    for prepared in (text, answer(text, text), answer("add(B2, C2)", text), f"so {GOLD}"):
        before, told = judge(prepared, CELLS), TASK.calculate(prepared, CELLS)
        after = judge(told, CELLS)
        assert (after.value, after.program, after.correct) == (
            (before.value, before.program, before.correct)
        )
        assert told == prepared if before.value is None else after.self_consistent
        assert TASK.calculate(told, CELLS) == told


def test_scores_of_real_gold_answers_are_official_and_full(finqa_dir: Path) -> None:
    for row in json.loads((finqa_dir / "test.json").read_text()):
        qa = row["qa"]
        example = {
            "id": row["id"],
            "literal_program": qa["program"],
            "exe_ans": qa["exe_ans"],
            "table": row["table"],
            "references": {},
            "operands": "literal",
            "tolerance": 0.01,
        }
        found = judge(answer(qa["program"], format_answer(qa["exe_ans"])), example)
        assert (found.correct, found.program_correct) == official_verdict(
            tokenize(qa["program"]), qa["program"], qa["exe_ans"], row["table"]
        )
        assert found.failure is None and set(found.parts.values()) == {1.0}, row["id"]

"""Claims about the scorer of GSM8K, its reward and quality, and its explanations for readers."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.tasks import Score, get_task
from posttrain.tasks.gsm8k.score import FAILURES, PARTS, score
from posttrain.tasks.reward import reward

TASK = get_task("gsm8k")
WEIGHTS = {"exact_match": 0.6, "numeric_close": 0.2, "program_valid": 0.1, "format_valid": 0.1}
REASONING = "In May it was 48/2 = <<48/2=24>>24.\nIn all 48+24 = <<48+24=72>>72."
GOLD = f"{REASONING}\n#### 72"
EXAMPLE: dict[str, Any] = {
    "id": "hand",
    "question": "Natalia sold 48 clips in April. In May she sold half as many. How many in all?",
    "target_program": REASONING,
    "target_answer": "72",
    "annotations": "keep",
    "tolerance": 0.01,
}


def judged(text: str, **changes: Any) -> Score:
    return score(text, {**EXAMPLE, **changes})


def worth(text: str, **changes: Any) -> float:
    return reward(judged(text, **changes).parts, WEIGHTS)


def test_the_gold_answer_is_right_in_every_respect() -> None:
    verdict = judged(TASK.target(EXAMPLE))
    assert verdict.status == "scored" and verdict.failure is None
    assert verdict.value == verdict.answer == 72.0
    assert verdict.correct and verdict.program_correct and verdict.self_consistent
    assert verdict.answer_strict and verdict.answer_lenient
    assert set(verdict.parts.values()) == set(verdict.quality.values()) == {1.0}


@pytest.mark.parametrize(
    ("text", "failure", "reward"),
    [
        (GOLD, None, 1.0),
        ("it is 72 in all", "unparseable", 0.0),
        ("#### many", "unparseable", 0.0),
        ("I think\n#### 70", "no_steps", 0.1),
        ("so <<48/2>>24\n#### 24", "invalid_step", 0.1),
        ("so <<48/2=25>>25\n#### 25", "wrong_arithmetic", 0.1),
        ("so <<48/2=24>>24\n#### 30", "inconsistent_answer", 0.2),
        ("so <<48/2=24>>24\n#### 24", "wrong_answer", 0.2),
        ("so <<48/2=25>>25 and\n#### 72", "wrong_steps_only", 0.9),
        ("I know it\n#### 72", None, 0.9),
        ("so <<48+24=72>>72\n#### 72 clips", None, 0.9),
        ("so <<48+24=72>>72\n#### 72\n#### 72", None, 0.9),
        ("<<48+24=72>>#### 72", None, 0.9),
        ("so <<145/2=72.5>>72.5\n#### 72.5", "wrong_answer", 0.4),
    ],
)
def test_what_is_wrong_with_an_answer_is_named_and_costs_its_part(
    text: str, failure: str | None, reward: float
) -> None:
    assert judged(text).failure == failure
    assert worth(text) == pytest.approx(reward)
    assert failure is None or failure in FAILURES


def test_the_last_number_is_judged_also_where_the_mark_is_missing() -> None:
    verdict = judged("It is 48+24 = <<48+24=72>>72.")
    assert verdict.status == "unparseable"
    assert verdict.answer_lenient and not verdict.answer_strict and not verdict.correct


@pytest.mark.parametrize("stated", ["72", "72.", "72.0", "72.00"])
def test_answers_are_compared_as_numbers(stated: str) -> None:
    assert judged(f"so\n#### {stated}").correct


def test_a_minus_of_any_kind_counts() -> None:
    for minus in "-−–‒－":
        verdict = judged(f"so 5{minus}77 = <<5{minus}77={minus}72>>{minus}72\n#### {minus}72")
        assert verdict.answer == -72 and verdict.self_consistent and not verdict.correct
        assert not verdict.answer_lenient and set(verdict.quality.values()) == {1.0}
        assert judged(f"so\n#### {minus}72", target_answer="-72").correct


@pytest.mark.parametrize(
    "written", ["72/2", "72:30", "72 500", "72,5", "72e3", "72-80", "72½", "72 + 1"]
)
def test_an_answer_that_begins_with_the_right_number_is_not_right(written: str) -> None:
    verdict = judged(f"so\n#### {written}")
    assert verdict.status == "unparseable" and not verdict.answer_lenient


@pytest.mark.parametrize("annotations", ["keep", "strip", "execute"])
def test_thoughts_are_no_part_of_an_answer(annotations: str) -> None:
    thoughts = "Is it <<48/2=25>>25?\n#### 70\nOr #### 72?\nWait"
    for start, end in (("<think>", "</think>"), ("", "</think>"), ("[THINK]", "[/THINK]")):
        text = f"{start}{thoughts}{end}\n"
        for answer in (GOLD, "so <<48/2=25>>25\n#### 25", "#### 70", ""):
            expected = judged(answer, annotations=annotations)
            assert judged(text + answer, annotations=annotations) == expected
            example = {**EXAMPLE, "annotations": annotations}
            told = TASK.calculate(text + answer, example)
            assert told.strip() == TASK.calculate(answer, example)
            assert TASK.explain(example, text + answer) == TASK.explain(example, answer)
    assert judged(f"<think>{thoughts}</think><think>{thoughts}</think>{GOLD}").correct
    for cut in (f"<think>{thoughts}", f"<think>{thoughts}</think>\n<think>#### 72"):
        assert judged(cut).status == "unparseable" and not judged(cut).answer_lenient


def test_a_right_answer_by_other_steps_is_right_and_by_wrong_ones_is_not_a_right_program() -> None:
    assert judged("so 24*3 = <<24*3=72>>72\n#### 72").program_correct
    assert not judged("so <<24*3=71>>71\n#### 72").program_correct
    assert not judged("so <<24*2=48>>48\n#### 72").program_correct


def test_an_example_without_a_number_is_unscorable_and_without_a_field_an_error() -> None:
    assert judged(GOLD, target_answer="many").status == "unscorable"
    with pytest.raises(UserError, match="'hand' has no field 'target_answer'"):
        score(GOLD, {name: v for name, v in EXAMPLE.items() if name != "target_answer"})


def test_annotations_decide_what_a_step_is() -> None:
    bare = "In May it was 48/2 = 24.\nIn all 48+24 = 72.\n#### 72"
    assert judged(bare, annotations="strip").parts["program_valid"] == 1.0
    assert judged(bare).parts["program_valid"] == 0.0
    slip = "so <<48/2=25>>25\nso <<48+25=73>>73\n#### 73"
    assert judged(slip).failure == "wrong_arithmetic"
    assert judged(slip, annotations="execute").program_correct


def test_the_calculator_corrects_an_answer_only_where_it_has_the_last_word() -> None:
    slip = "so <<48/2=25>>25\nso <<48+25=73>>73\n#### 73"
    told = TASK.calculate(slip, {**EXAMPLE, "annotations": "execute"})
    assert told == "so <<48/2=24>>24\nso <<48+24=72>>72\n#### 72"
    assert judged(told, annotations="execute") == judged(slip, annotations="execute")
    for kept in ("keep", "strip"):
        assert TASK.calculate(slip, {**EXAMPLE, "annotations": kept}) == slip


def test_quality_counts_right_steps_used_steps_and_repeated_lines() -> None:
    unused = f"They met 3*4 = <<3*4=12>>12 people.\n{GOLD}"
    assert judged(unused).quality["steps_used"] == pytest.approx(2 / 3)
    assert judged(unused).quality["program_valid"] == 1.0
    again = GOLD.replace("\n####", "\nThat is all.\nThat is all.\n####")
    assert judged(again).quality["no_repetition"] == pytest.approx(4 / 5)
    half = GOLD.replace("48/2=24", "48/2=25")
    assert judged(half).quality["program_valid"] == 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "####",
        "#### NaN",
        "#### 1e999",
        f"#### {'9' * 5000}",
        "<<__import__('os').system('true')=1>>\n#### 1",
        "<<" * 40_000,
        "9," * 40_000,
        "\ud800 \x00 #### 7",
        "x" * 200_000 + GOLD,
        "\n".join(f"<<{n}+1={n + 1}>>" for n in range(10_000)) + "\n#### 1",
    ],
)
@pytest.mark.parametrize("annotations", ["keep", "strip", "execute"])
def test_odd_text_is_scored_and_explained_in_bounded_time(text: str, annotations: str) -> None:
    start = time.process_time()
    verdict = judged(text, annotations=annotations)
    explained = TASK.explain({**EXAMPLE, "annotations": annotations}, text)
    assert time.process_time() - start < 10
    assert not verdict.correct and len(explained.steps) <= 30
    json.dumps(asdict(verdict), allow_nan=False)


@given(st.text(alphabet="0123456789.,$#<>=+-*/x() \nab", max_size=80) | st.text(max_size=80))
def test_every_text_has_a_score_whose_parts_are_shares(text: str) -> None:
    verdict = judged(text)
    assert verdict.parts.keys() == {*PARTS}
    assert all(0 <= part <= 1 for part in [*verdict.parts.values(), *verdict.quality.values()])
    assert verdict.correct <= verdict.answer_strict
    assert verdict.program_correct <= verdict.correct
    assert 0 <= reward(verdict.parts, WEIGHTS) <= 1


def test_a_reader_sees_the_sentences_and_what_each_step_gives() -> None:
    explained = TASK.explain(EXAMPLE, "so <<48/2=25>>25\nso <<48/0+1=3>>\n#### 73")
    assert [part.pieces[0].text for part in explained.page] == [  # type: ignore[union-attr]
        "Natalia sold 48 clips in April.",
        "In May she sold half as many.",
        "How many in all?",
    ]
    first, second = explained.steps
    assert (first.operation, first.text, first.value) == ("divide", "48/2=25", "24")
    assert (second.operation, second.value) == ("divide and add", None) and second.error
    assert explained.answer == "73"
    assert TASK.explain(EXAMPLE, "no idea").error


def test_each_variant_asks_in_one_line_more_and_has_its_own_hash() -> None:
    direct = TASK.prompt(EXAMPLE).split("\n")
    for variant in ("reflective", "deliberative"):
        asked = TASK.prompt(EXAMPLE, variant).split("\n")
        assert len(asked) == len(direct) + 1 and set(direct) < set(asked)
    stripped = TASK.prompt({**EXAMPLE, "annotations": "strip"})
    assert "<<" in TASK.prompt(EXAMPLE) and "<<" not in stripped

"""FinQA's examples: context, search and prompts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.tasks.finqa.context import (
    bm25,
    page_facts,
    rank_facts,
    row_sentence,
    select_facts,
    stem,
)
from posttrain.tasks.finqa.examples import (
    make_example,
    operand_coverage,
    program_operands,
    retrieval_recall,
    search_depths,
)
from posttrain.tasks.finqa.load import load_split
from posttrain.tasks.finqa.prompt import prompt, render_answer

ROW = {
    "id": "V/2008/page_17.pdf-1",
    "filename": "V/2008/page_17.pdf",
    "pre_text": ["the company sells cards .", "rent was 12 in 2008 ."],
    "table": [["", "2008", "2007"], ["net revenue", "90", "80"], ["leases", "7", "6"]],
    "post_text": ["nothing else happened ."],
    "qa": {
        "question": "what was the change in net revenue from 2007 to 2008?",
        "program": "subtract(90, 80)",
        "exe_ans": 10.0,
        "gold_inds": {"table_1": "..."},
    },
}


def test_facts_are_named_as_in_gold_inds() -> None:
    keys = [fact.key for fact in page_facts(ROW)]
    assert keys == ["text_0", "text_1", "table_1", "table_2", "text_2"]


def test_row_sentences_read_as_the_data_set_writes_them(finqa_dir) -> None:
    same = total = 0
    for row in load_split(finqa_dir / "test.json"):
        for key, fact in row["qa"]["gold_inds"].items():
            source, index = key.split("_")
            if source == "table" and int(index):
                total += 1
                same += row_sentence(row["table"], int(index)).split() == fact.split()
    assert same > 0.95 * total > 1000


def test_the_search_finds_the_row_that_the_question_names() -> None:
    assert select_facts(ROW, "retrieved", top_n=1) == {"table_1"}


def test_full_shows_everything_and_gold_only_the_gold_facts() -> None:
    assert len(select_facts(ROW, "full", top_n=1)) == 5
    assert select_facts(ROW, "gold", top_n=1) == {"table_1"}


def test_gold_of_a_row_without_gold_facts_is_the_search() -> None:
    row = {**ROW, "qa": {**ROW["qa"], "gold_inds": {}}}
    assert select_facts(row, "gold", top_n=1) == select_facts(ROW, "retrieved", top_n=1)


def test_the_search_never_looks_at_gold() -> None:
    hidden = {**ROW, "qa": {"question": ROW["qa"]["question"]}}
    assert select_facts(hidden, "retrieved", 3) == select_facts(ROW, "retrieved", 3)


def test_bm25_by_hand() -> None:
    # Two documents of equal length, the word in one: idf = ln(1 + 1.5 / 1.5), frequency part = 1.
    scores = bm25([["rent", "x"], ["y", "z"]], ["rent"], k1=1.2, b=0.5)
    assert scores == pytest.approx([0.6931471805599453, 0.0])
    assert bm25([], ["rent"]) == []


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=5), max_size=6))
def test_bm25_scores_only_documents_that_share_a_word(documents: list[list[str]]) -> None:
    for document, score in zip(documents, bm25(documents, ["a", "b"]), strict=True):
        assert (score > 0) == bool(set(document) & {"a", "b"})


def test_equal_facts_keep_the_pages_order() -> None:
    facts = page_facts({**ROW, "pre_text": ["x", "x", "x"], "table": [], "post_text": []})
    assert rank_facts("anything", facts) == [0, 1, 2]


@pytest.mark.parametrize(
    ("a", "b"), [("lease", "leases"), ("company", "companies"), ("expire", "expiring")]
)
def test_stems_meet(a: str, b: str) -> None:
    assert stem(a) == stem(b)


def test_recall_by_hand() -> None:
    recall = retrieval_recall([search_depths(ROW)])
    assert recall["gold_facts"]["at_1"] == 1.0
    missing = {
        **ROW,
        "qa": {**ROW["qa"], "program": "subtract(91, 80)", "gold_inds": {"text_2": ""}},
    }
    recall = retrieval_recall([search_depths(missing)])
    assert recall["operands"]["at_16"] == 0.0
    assert recall["gold_facts"]["at_1"] == 0.0
    assert recall["gold_facts"]["at_8"] == 1.0


def test_recall_on_real_questions_is_at_least_that_of_plain_bm25(finqa_dir) -> None:
    recall = retrieval_recall(map(search_depths, load_split(finqa_dir / "test.json")))["operands"]
    assert recall["at_5"] >= 0.79
    assert recall["at_8"] >= 0.86
    assert recall["at_12"] >= 0.92


def test_an_example_holds_what_later_stages_need() -> None:
    example = make_example(ROW, "full", 8, "cells")
    assert example["target_program"] == "subtract(B2, C2)"
    assert example["literal_program"] == "subtract(90, 80)"
    assert example["target_answer"] == "10"
    assert example["references"]["T1"] == "12"
    assert example["table"] == ROW["table"]
    literal = make_example(ROW, "full", 8, "literal")
    assert literal["target_program"] == "subtract(90, 80)"
    assert literal["references"] == example["references"]


def test_coverage_by_hand() -> None:
    example = make_example(ROW, "full", 8, "cells")
    assert operand_coverage([example]) == {
        "total": 2,
        "visible": 1.0,
        "ambiguous": 0.0,
        "as_reference": 1.0,
        "programs_fully_visible": 1.0,
    }


def test_operands_are_numbers_and_row_labels() -> None:
    program = "table_sum(net revenue, none), divide(#0, 3.5%), multiply(#1, const_100)"
    assert program_operands(program) == {"net revenue", "3.5%"}


def test_a_prompt_holds_page_and_question_and_ends_before_the_answer() -> None:
    for operands, end in (("cells", "answer:"), ("literal", "Answer:")):
        text = prompt(make_example(ROW, "full", 8, operands))
        assert ROW["qa"]["question"] in text
        assert text.endswith(end)


def test_answers_are_the_json_form() -> None:
    text = render_answer("subtract(B2, C2), divide(#0, C2)", "0.125")
    assert json.loads(text) == {
        "program": ["subtract(B2, C2)", "divide(#0, C2)"],
        "answer": "0.125",
    }

"""Pages as sheets: references are the page's own numbers, and programs survive the round trip."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.tasks.finqa.examples import make_example, operand_coverage
from posttrain.tasks.finqa.load import SPLIT_FILES, load_split
from posttrain.tasks.finqa.program import execute, parse, render, resolve
from posttrain.tasks.finqa.sheet import (
    cell_literal,
    column_letter,
    compact_cell,
    header_literal,
    render_page,
    text_numbers,
    to_cells,
)

ROW = {
    "pre_text": ["rent was $ 5.8 billion in 2009 .", "see note 12 ."],
    "table": [
        ["in millions", "2009", "december 31 2008"],
        ["net revenue", "$ 5829", "$ 5735"],
        ["other", "-3 ( 3 )", "12.5% ( 12.5 % )"],
    ],
    "post_text": ["the rate was 75% ( 75 % ) ."],
}
ALL = {"text_0", "text_1", "text_2", "table_1", "table_2"}


def test_a_page_in_cells_reads_like_a_spreadsheet() -> None:
    page = render_page(ROW, ALL, "cells")
    assert page.text.split("\n") == [
        "[T1 rent was $] 5.8 billion in 2009 .",
        "see note 12 .",
        "1 in millions | B 2009 | C december 31 2008",
        "2 net revenue | 5829 | 5735",
        "3 other | -3 | 12.5%",
        "[T2 the rate was] 75% ( 75 % ) .",
    ]
    assert page.references == {
        "T1": "5.8",
        "T2": "75%",
        "B1": "2009",
        "C1": "2008",
        "A2": "net revenue",
        "B2": "5829",
        "C2": "5735",
        "A3": "other",
        "B3": "-3",
        "C3": "12.5%",
    }


def test_a_hidden_row_keeps_the_numbers_of_the_others() -> None:
    page = render_page(ROW, {"table_2"}, "cells")
    assert page.text == "1 in millions | B 2009 | C december 31 2008\n3 other | -3 | 12.5%"
    assert "B2" not in page.references


def test_a_page_without_visible_rows_shows_no_table() -> None:
    assert render_page(ROW, {"text_1"}, "cells").text == "see note 12 ."


def test_literal_pages_show_the_data_sets_own_words_and_the_same_references() -> None:
    page = render_page(ROW, ALL, "literal")
    assert "[T1" not in page.text
    assert "| net revenue | $ 5829 | $ 5735 |" in page.text
    assert page.references == render_page(ROW, ALL, "cells").references
    sentences = render_page(ROW, {"table_1"}, "literal", sentences=True).text
    assert sentences.startswith("in millions the net revenue of 2009 is $ 5829 ;")


@pytest.mark.parametrize(
    ("cell", "literal"),
    [
        ("$ 2457", "2457"),
        ("-3 ( 3 )", "-3"),
        ("$ -850 ( 850 )", "-850"),
        ("12.5% ( 12.5 % )", "12.5%"),
        ("( 3 )", "3"),
        (".5", ".5"),
        ("n/a", None),
        ("", None),
        ("2014", "2014"),
        ("NaN", None),
    ],
)
def test_cells_stand_for_their_first_number(cell: str, literal: str | None) -> None:
    assert cell_literal(cell) == literal


def test_headers_stand_for_their_year() -> None:
    assert header_literal("december 31 2008") == "2008"
    assert header_literal("amount ( in millions )") is None
    assert header_literal("30 days") == "30"


def test_compact_cells_lose_signs_and_repetition_but_no_other_words() -> None:
    assert compact_cell("$ -850 ( 850 )") == "-850"
    assert compact_cell("5 ( restated )") == "5 ( restated )"
    assert compact_cell("56.2 to 58.9") == "56.2 to 58.9"


def test_years_days_and_repetitions_in_text_carry_no_tag() -> None:
    text = "at december 31 , 2009 , $ 2010 was 75% ( 75 % ) of 12 ( see page 4 ) and -8 ( 8 ) ."
    assert [literal for _, _, literal in text_numbers(text)] == ["2010", "75%", "12", "-8"]


@given(st.text(alphabet="0123456789.%$()-, ab", max_size=60))
def test_tags_point_at_their_own_words(text: str) -> None:
    for start, stop, literal in text_numbers(text):
        assert text[start:stop] == literal


@given(st.integers(0, 800))
def test_column_letters_are_distinct_and_ordered_as_in_a_spreadsheet(index: int) -> None:
    a, b = column_letter(index), column_letter(index + 1)
    assert (len(a), a) < (len(b), b)
    assert [column_letter(i) for i in (0, 25, 26, 701, 702)] == ["A", "Z", "AA", "ZZ", "AAA"]


def test_operands_become_references_and_constants_stay() -> None:
    page = render_page(ROW, ALL, "cells")
    program = "subtract(5829, 5735), divide(#0, 5735), multiply(#1, const_100)"
    cells = "subtract(B2, C2), divide(#0, C2), multiply(#1, const_100)"
    assert to_cells(program, page, "what was the change?") == cells
    assert to_cells("table_sum(net revenue, none)", page, "?") == "table_sum(A2, none)"


def test_an_operand_that_the_page_does_not_show_stays_literal() -> None:
    page = render_page(ROW, {"table_1"}, "cells")
    assert to_cells("add(5829, 5.8)", page, "?") == "add(B2, 5.8)"
    assert to_cells("add(5829.0, 3)", page, "?") == "add(5829.0, 3)"


def test_among_equal_numbers_gold_facts_come_first_then_the_year_asked_for() -> None:
    table = [["", "2009", "2008"], ["sales", "7", "7"], ["costs", "7", "9"]]
    row = {"pre_text": ["it was 7 ."], "table": table, "post_text": []}
    page = render_page(row, {"text_0", "table_1", "table_2"}, "cells")
    assert to_cells("add(7, 9)", page, "in 2008 ?", gold={"table_1"}) == "add(C2, C3)"
    assert to_cells("add(7, 9)", page, "in 2009 ?", gold={"table_2"}) == "add(B3, C3)"
    assert to_cells("add(7, 9)", page, "?", gold={"text_0"}) == "add(T1, C3)"


def test_a_program_that_does_not_parse_is_left_alone() -> None:
    assert to_cells("subtract(5829", render_page(ROW, ALL, "cells"), "?") == "subtract(5829"


@pytest.mark.parametrize("context", ["full", "retrieved", "gold"])
def test_every_real_program_comes_back_from_its_cells(finqa_dir, context: str) -> None:
    names = SPLIT_FILES.values() if context == "full" else ["test.json"]
    rows = [row for name in names for row in load_split(finqa_dir / name)]
    examples = [make_example(row, context, 8, "cells") for row in rows]
    for row, example in zip(rows, examples, strict=True):
        back = resolve(example["target_program"], example["references"])
        assert render(back) == row["qa"]["program"] == example["literal_program"]
        if context == "gold":
            assert execute(back, row["table"]) == row["qa"]["exe_ans"]
    if context == "full":
        assert operand_coverage(examples)["as_reference"] > 0.94


def test_ids_of_real_rows_do_not_depend_on_the_form(finqa_dir) -> None:
    row = load_split(finqa_dir / "dev.json")[0]
    cells, literal = (make_example(row, "retrieved", 8, form) for form in ("cells", "literal"))
    same = ("id", "question", "target_answer", "literal_program", "references", "exe_ans")
    assert all(cells[name] == literal[name] for name in same)
    assert parse(literal["target_program"]) == resolve(cells["target_program"], cells["references"])

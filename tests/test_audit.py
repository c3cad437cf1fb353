"""The audit rejects rows that make no sense, with a reason, and a broken file ends in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl
from posttrain.tasks.finqa.audit import answer_class, audit, audit_splits
from posttrain.tasks.finqa.load import SPLIT_FILES, load_split

ROW: dict[str, Any] = {
    "id": "V/2008/page_17.pdf-1",
    "filename": "V/2008/page_17.pdf",
    "pre_text": ["rent was 12 in 2008 ."],
    "table": [["", "2008", "2007"], ["net revenue", "90", "80"]],
    "post_text": [],
    "qa": {
        "question": "what was the change?",
        "program": "subtract(90, 80)",
        "exe_ans": 10.0,
        "gold_inds": {"table_1": "..."},
        "answer": "10",
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    """ROW with other fields; names of `qa`'s fields change those."""
    row = copy.deepcopy(ROW)
    row["id"] = changes.pop("id", "other")
    for name, value in changes.items():
        (row["qa"] if name in row["qa"] else row)[name] = value
    return row


def reason(row: dict[str, Any]) -> str:
    kept: dict[str, list[dict[str, Any]]] = {}
    result = audit_splits({"train": [ROW, row]}, lambda split, rows: kept.update({split: [*rows]}))
    assert [rejected.row for rejected in result.rejected] == [1]
    assert kept == {"train": [ROW]}
    assert result.metrics["train"]["rejected"] == {result.rejected[0].reason: 1}
    return result.rejected[0].reason


def test_a_sound_row_is_kept() -> None:
    assert audit_splits({"train": [ROW]}).rejected == []


def test_bad_rows_are_rejected_with_their_reason() -> None:
    assert reason(changed(id=ROW["id"])) == "duplicate_id"
    assert reason(changed(program="subtract(90, 80")) == "program_invalid"
    assert reason(changed(program="average(90, 80)")) == "program_invalid"
    assert reason(changed(program="divide(90, 0)")) == "program_invalid"
    assert reason(changed(program="table_sum(costs, none)")) == "program_invalid"
    assert reason(changed(exe_ans=11.0)) == "answer_mismatch"
    assert reason(changed(exe_ans="yes")) == "answer_mismatch"
    empty = changed(table=[["", "2008"]], program="table_sum(net revenue, none)")
    assert reason(empty) == "empty_table"
    for cell in ("nan", "inf", "1e400", "9" * 400):
        table = [["", "2008"], ["net revenue", cell]]
        assert (
            reason(changed(table=table, program="table_max(net revenue, none)"))
            == "number_not_finite"
        )


def test_an_id_used_in_another_split_is_a_duplicate() -> None:
    result = audit_splits({"train": [ROW], "test": [ROW]})
    assert [(r.split, r.reason) for r in result.rejected] == [("test", "duplicate_id")]
    assert "train row 0" in result.rejected[0].detail


def test_a_strange_number_that_no_program_reads_is_counted_and_kept() -> None:
    row = changed(table=[["", "2008"], ["net revenue", "90"], ["costs", "nan"]])
    result = audit_splits({"train": [row]})
    assert result.rejected == []
    assert result.metrics["train"]["tables_with_strange_numbers"] == 1


def test_leakage_counts_ids_pages_and_questions() -> None:
    same_page = changed(question="what was the rent?")
    leakage = audit_splits({"train": [ROW], "test": [ROW, same_page]}).metrics["leakage"]
    assert leakage == {"train_test": {"ids": 1, "pages": 2, "page_and_question": 1}}


@pytest.mark.parametrize(
    ("answer", "expected", "found"),
    [
        ("94", 94.0, "agrees"),
        ("87%", 0.86957, "agrees"),
        ("$ 1,234.5 million", 1234.5, "agrees"),
        ("yes", "yes", "agrees"),
        ("", 1.0, "empty"),
        (None, 1.0, "empty"),
        ("30.4%", -0.30435, "sign"),
        ("16.5%", 16.5, "percent_scale"),
        ("79.6", 0.79588, "percent_scale"),
        ("7.87%", 0.07879, "rounding"),
        ("81.6", 81.66667, "rounding"),
        ("42.0", -0.38213, "other"),
        ("no", "yes", "other"),
        ("unknown", 3.0, "other"),
    ],
)
def test_human_answers_by_class(answer: str | None, expected: float | str, found: str) -> None:
    assert answer_class(answer, expected) == found


def test_lengths_say_what_each_limit_would_cut() -> None:
    rows = [changed(id=str(n), pre_text=["word " * n]) for n in (10, 300, 600)]
    length = audit_splits({"train": rows}).metrics["train"]["length"]
    assert [length[f"over_{limit}"] for limit in (256, 512, 1024, 2048)] == [2, 1, 0, 0]
    length = audit_splits({"train": rows}, count_tokens=lambda text: 5000).metrics["train"][
        "length"
    ]
    assert length["over_2048"] == 3


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_broken_file_is_one_line_naming_file_row_and_field(tmp_path) -> None:
    path = tmp_path / "train.json"
    without_program = copy.deepcopy(ROW)
    del without_program["qa"]["program"]
    without_table = {name: value for name, value in ROW.items() if name != "table"}
    for text, told in (
        (json.dumps([ROW])[:-20], ["not valid JSON", ":1:"]),
        ("{}", ["expected a list"]),
        ("[]", ["empty"]),
        ("[3]", ["row 0", "expected an object"]),
        (json.dumps([ROW, without_program]), ["row 1", "'qa.program' is missing"]),
        (json.dumps([without_table]), ["row 0", "'table' is missing"]),
        (json.dumps([changed(table=[[1]])]), ["'table' must be a list of rows"]),
        (json.dumps([changed(table=None)]), ["'table' must be"]),
        (json.dumps([changed(exe_ans=float("nan"))]), ["'qa.exe_ans' must be a finite number"]),
        (json.dumps([changed(exe_ans="maybe")]), ["'qa.exe_ans'"]),
        (json.dumps([changed(exe_ans=True)]), ["'qa.exe_ans'"]),
        (json.dumps([changed(question=" ")]), ["'qa.question' must be a non-empty string"]),
        (json.dumps([changed(qa=[])]), ["'qa' must be an object"]),
    ):
        with pytest.raises(UserError) as caught:
            load_split(write(path, text))
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        assert all(part in message for part in told), message


def test_a_missing_file_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match=r"train\.json"):
        load_split(tmp_path / "train.json")


NOT_TEXT = "\ud800"
DEEP = json.loads("[" * 200 + "]" * 200)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (changed(pre_text=[f"bad {NOT_TEXT} byte"]), "pre_text.0"),
        (changed(question=NOT_TEXT), "qa.question"),
        (changed(program=f"add(1, {NOT_TEXT})"), "qa.program"),
        (changed(answer=NOT_TEXT), "qa.answer"),
        (changed(table=[["", "2008"], [NOT_TEXT, "1"]]), "table.1.0"),
        (changed(gold_inds={NOT_TEXT: ""}), "a key of qa.gold_inds"),
        (changed(filename=NOT_TEXT), "filename"),
        (changed(id=NOT_TEXT), "id"),
        (changed(tier=NOT_TEXT), "tier"),
        (changed(tier=float("nan")), "tier"),
        (changed(tier=10**400), "tier"),
        (changed(tier=DEEP), "tier"),
    ],
)
def test_a_row_that_cannot_be_written_is_rejected_with_the_place(
    row: dict[str, Any], place: str, tmp_path: Path
) -> None:
    """The files hold text, as ever."""
    for split, name in SPLIT_FILES.items():
        write(tmp_path / name, json.dumps([changed(id=split), row][: 1 + (split == "train")]))
    metrics = audit(tmp_path, tmp_path / "out")
    (rejected,) = read_jsonl(tmp_path / "out" / "rejected.jsonl")
    assert (rejected["split"], rejected["row"], rejected["reason"]) == ("train", 1, "not_writable")
    assert rejected["detail"].startswith(f"{place} ")
    assert (metrics["train"]["rows"], metrics["train"]["clean"]) == (2, 1)


def test_strange_characters_are_text(tmp_path: Path) -> None:
    row = changed(pre_text=["a\0b \u2028 \x85 \ufeff \uffff \U0001f600"])
    for split, name in SPLIT_FILES.items():
        write(tmp_path / name, json.dumps([{**row, "id": split}], ensure_ascii=False))
    audit(tmp_path, tmp_path / "out")
    assert read_jsonl(tmp_path / "out" / "train.jsonl") == [{**row, "id": "train"}]


def test_a_huge_answer_is_compared() -> None:
    assert answer_class("5%", 2**1022) == "other"
    assert reason(changed(exe_ans=2**1022)) == "answer_mismatch"


def test_files_hold_kept_rows_and_listed_rejects(tmp_path) -> None:
    for split, name in SPLIT_FILES.items():
        row, bad = changed(id=split), changed(id=f"bad {split}", exe_ans=3.0)
        write(tmp_path / name, json.dumps([bad, row]))
    audit(tmp_path, tmp_path / "out")
    for split in SPLIT_FILES:
        assert [row["id"] for row in read_jsonl(tmp_path / "out" / f"{split}.jsonl")] == [split]
    rejected = read_jsonl(tmp_path / "out" / "rejected.jsonl")
    assert [(row["split"], row["row"], row["id"]) for row in rejected] == [
        (split, 0, f"bad {split}") for split in SPLIT_FILES
    ]
    assert all("exe_ans is 3.0" in row["detail"] for row in rejected)


def test_a_split_without_a_sound_row_is_an_error(tmp_path) -> None:
    for name in SPLIT_FILES.values():
        write(tmp_path / name, json.dumps([changed(exe_ans=3.0)]))
    with pytest.raises(UserError, match="every row was rejected"):
        audit(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_data_passes_but_for_one_row(finqa_dir) -> None:
    splits = {split: load_split(finqa_dir / name) for split, name in SPLIT_FILES.items()}
    result = audit_splits(splits)
    # Two rows of that table have the same label, and exe_ans was computed from the first of them.
    assert [(r.id, r.reason) for r in result.rejected] == [
        ("DISH/2014/page_64.pdf-3", "answer_mismatch")
    ]
    assert all(not any(pair.values()) for pair in result.metrics["leakage"].values())

"""Claims about GSM8K's data stages: the generated sample, fetching, the audit, the examples; all real rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import git_blob_id, read_jsonl
from posttrain.core.params import Params, check_params
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.auditing import let_go
from posttrain.tasks.gsm8k.audit import _Profile, audit_splits
from posttrain.tasks.gsm8k.examples import draw, make_example
from posttrain.tasks.gsm8k.load import FILES, load_rows
from posttrain.tasks.gsm8k.reading import read_steps, strict_answer
from posttrain.tasks.gsm8k.sample import generate
from posttrain.tasks.gsm8k.score import score

TASK = get_task("gsm8k")
SIZES = {"train": 400, "test": 100}
ROW = {"question": "What is half of 48?", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24"}


@pytest.fixture(scope="module")
def sample() -> dict[str, list[dict[str, str]]]:
    return generate(0, SIZES)


def chosen(dataset: str, **changes: Any) -> Params:
    """The project's params with this data set and changes of its entry."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["dataset"] = dataset
    values["datasets"][dataset] |= changes
    return check_params(values)


def write_files(folder: Path, rows: list[Any]) -> Path:
    """Write both files with the same rows, except for the questions of test."""
    folder.mkdir(exist_ok=True)
    for split, name in FILES.items():
        told = [
            {**row, "question": f"{split}: {row['question']}"} if "question" in row else row
            for row in rows
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in told))
    return folder


def made(row: dict[str, str], annotations: Any) -> dict[str, Any]:
    return {**make_example({"id": "s", **row}, annotations), "tolerance": 0.01}


# ------------------------------------------------------------------------------ the sample


def test_the_sample_is_the_same_for_the_same_seed_and_another_for_another(
    sample: dict[str, list[dict[str, str]]],
) -> None:
    assert generate(0, SIZES) == sample
    assert generate(1, SIZES) != sample


def test_every_sample_answer_is_right_by_two_to_five_right_steps(
    sample: dict[str, list[dict[str, str]]],
) -> None:
    for row in sample["train"] + sample["test"]:
        steps = read_steps(row["answer"], "keep")
        verdict = score(row["answer"], made(row, "keep"))
        assert 2 <= len(steps) <= 5 and all(step.right for step in steps)
        assert verdict.program_correct and set(verdict.quality.values()) == {1.0}, row


def test_sample_questions_differ_and_split_evenly_over_many_kinds(
    sample: dict[str, list[dict[str, str]]],
) -> None:
    questions = [row["question"] for rows in sample.values() for row in rows]
    assert len(set(questions)) == len(questions)
    shapes = Counter(re.sub(r"[A-Z]\w+|\d[\d.]*", "", question) for question in questions)
    assert max(shapes.values()) < len(questions) / 20
    for mark in ("%", ".50", "half", "twice", "years old", "$"):
        assert any(mark in question for question in questions)


def test_sample_steps_use_numbers_of_the_question_or_of_earlier_steps(
    sample: dict[str, list[dict[str, str]]],
) -> None:
    words = {"half": "2", "third": "3", "quarter": "4", "fifth": "5", "twice": "2", "three": "3", "four": "4"}  # fmt: skip
    for row in sample["train"]:
        known = {*re.findall(r"\d+(?:\.\d+)?", row["question"]), "100"}
        known |= {number for word, number in words.items() if word in row["question"].lower()}
        known |= {"5"} if "five times" in row["question"] else set()
        for step in read_steps(row["answer"], "keep"):
            assert set(re.findall(r"\d+(?:\.\d+)?", step.expression)) <= known, row
            known.add(step.stated)


# ------------------------------------------------------------------------------ fetching


def test_the_sample_is_fetched_as_two_files_in_the_original_layout(tmp_path: Path) -> None:
    params = chosen("gsm8k-sample", train=30, val=10, test=20)
    TASK.fetch(params, tmp_path / "out")
    assert {name: len(read_jsonl(tmp_path / "out" / name)) for name in FILES.values()} == {
        "train.jsonl": 40,
        "test.jsonl": 20,
    }
    assert all(
        row.keys() == {"question", "answer"} for row in read_jsonl(tmp_path / "out/test.jsonl")
    )


def test_a_folder_is_copied_byte_for_byte_and_a_broken_file_is_not(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", [ROW])
    params = chosen("gsm8k", path=str(source))
    TASK.fetch(params, tmp_path / "out")
    for name in FILES.values():
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    (source / "test.jsonl").write_text('{"question": "cut of')
    with pytest.raises(UserError, match=r"test\.jsonl:1: not valid JSON"):
        TASK.fetch(params, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"anotations": "keep"}, "options: anotations: unknown parameter; did you mean 'annotations'"),
        ({"annotations": "kep"}, "options: annotations: 'kep' is not one of 'keep', 'strip' or 'execute'"),
        ({}, "options: annotations: missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_options_is_one_line(tmp_path: Path, options: Any, problem: str) -> None:
    with pytest.raises(UserError, match=f"params.yaml: datasets.gsm8k-sample.{re.escape(problem)}"):
        TASK.fetch(chosen("gsm8k-sample", options=options), tmp_path)


def test_a_data_set_without_options_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"datasets\.finqa\.options: annotations: unknown"):
        get_task("finqa").fetch(chosen("finqa", options={"annotations": "keep"}), tmp_path)


# ------------------------------------------------------------------------------ the audit


@pytest.mark.parametrize(
    ("bad", "place"),
    [
        ({"question": "A pen \ud83d costs $2. How much do two cost?"}, "question"),
        ({"answer": "2*2 = <<\ud83d*2=4>>4\n#### 4"}, "answer"),
        ({"id": "\ud800"}, "id"),
        ({"\ud800": 1}, "a key"),
        ({"source": float("nan")}, "source"),
    ],
)
def test_a_row_that_cannot_be_written_is_rejected_with_the_place(
    bad: dict[str, Any], place: str, tmp_path: Path
) -> None:
    """Also where it would be listed as a disagreement."""
    source = write_files(tmp_path / "in", [ROW, {**ROW, "question": "Again?", **bad}])
    metrics = TASK.audit(source, tmp_path / "out")
    rejected = read_jsonl(tmp_path / "out" / "rejected.jsonl")
    assert [(row["row"], row["reason"]) for row in rejected] == [(1, "not_writable")] * len(FILES)
    assert all(row["detail"].startswith(f"{place} ") for row in rejected)
    assert (metrics["train"]["rows"], metrics["train"]["clean"]) == (2, 1)
    assert len(read_jsonl(tmp_path / "out" / "train.jsonl")) == 1


@pytest.mark.parametrize("name", [5, [1], None, " "])
def test_an_id_that_is_no_text_is_named(name: Any, tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", [ROW, {**ROW, "id": name}])
    with pytest.raises(UserError, match=r"test\.jsonl: row 1: field 'id' must be a non-empty"):
        TASK.audit(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_between_blank_lines_are_numbered_without_them(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = json.dumps({**ROW, "question": "a\u2028b"}, ensure_ascii=False)
    path.write_text(f"\ufeff\n \t\n{row}\r\n\x0b\n\x85\n{row}\r", encoding="utf-8", newline="")
    assert [row["id"] for row in load_rows(path)] == ["gsm8k-train-00001", "gsm8k-train-00002"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"question": "half', "train.jsonl:2: not valid JSON"),
        ("[1]", "train.jsonl:2: expected a JSON object, found list"),
        ('{"question": "why?"}', "train.jsonl: row 1: field 'answer' is missing"),
        ('{"question": "why?", "answer": NaN}', "row 1: field 'answer' must be a non-empty string, found nan"),
        ('{"question": "", "answer": "1"}', "row 1: field 'question' must be a non-empty string, found ''"),
        ('{"question": "why?", "answer": ["1"]}', "must be a non-empty string, found list"),
    ],
)  # fmt: skip
def test_a_broken_row_ends_the_audit_with_file_row_and_field(
    tmp_path: Path, line: str, problem: str
) -> None:
    source = write_files(tmp_path / "in", [ROW])
    with (source / "train.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(UserError, match=re.escape(problem)) as caught:
        TASK.audit(source, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_useless_rows_are_left_out_with_a_reason_and_disagreements_are_listed(
    tmp_path: Path,
) -> None:
    source = write_files(
        tmp_path / "in",
        [
            ROW,
            {**ROW, "question": "What is  HALF of 48?"},
            {"question": "How many?", "answer": "Many.\n#### many"},
            {"question": "And of 49?", "answer": "It is <<49/2=25>>25.\n#### 25"},
            {"question": "And of 50?", "answer": "It is <<50/=25>>25.\n#### 25"},
        ],
    )
    metrics = TASK.audit(source, tmp_path / "out")
    assert metrics["train"]["rejected"] == {"answer_missing": 1, "duplicate_question": 1}
    assert metrics["train"]["clean"] == 3
    found = metrics["train"]["annotations"]
    assert (found["exact"], found["disagree"], found["invalid"]) == (2, 1, 1)
    rejected = read_jsonl(tmp_path / "out/rejected.jsonl")
    assert {(row["row"], row["reason"]) for row in rejected if row["split"] == "train"} == {
        (1, "duplicate_question"),
        (2, "answer_missing"),
    }
    listed = read_jsonl(tmp_path / "out/disagreements.jsonl")
    assert {row["expression"] for row in listed} == {"49/2", "50/"}


def test_a_gold_answer_that_is_not_wholly_a_number_is_rejected_and_listed(tmp_path: Path) -> None:
    halves = [
        "1/2",
        "2 1/2",
        "1e3",
        "10:30",
        "1 234",
        "5-6",
        "1,5",
        "1.234,50",
        "1,2,3",
        "5 kg",
        "9%",
    ]
    wholes = {"1\u202f234": "1234", "−5": "-5", "$1,200.50": "1200.5", "７２": "72", "7.": "7"}
    rows = [
        {"question": f"Which is {written}?", "answer": f"It is <<2+3=5>>5.\n#### {written}"}
        for written in (*halves, *wholes)
    ]
    metrics = TASK.audit(write_files(tmp_path / "in", rows), tmp_path / "out")
    assert metrics["train"]["rejected"] == {"answer_missing": len(halves)}
    listed = [row for row in read_jsonl(tmp_path / "out/rejected.jsonl") if row["split"] == "train"]
    assert [row["row"] for row in listed] == [*range(len(halves))]
    assert all(
        f"'#### {written}', not #### and a number" in row["detail"]
        for row, written in zip(listed, halves, strict=True)
    )
    kept = [make_example(row, "keep") for row in read_jsonl(tmp_path / "out/train.jsonl")]
    assert [example["target_answer"] for example in kept] == [*wholes.values()]
    assert {example["target_program"] for example in kept} == {"It is <<2+3=5>>5."}


def test_a_question_of_test_is_left_out_of_train(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", [ROW, {**ROW, "question": "another"}])
    (source / "test.jsonl").write_text(json.dumps({**ROW, "question": f"train: {ROW['question']}"}))
    metrics = TASK.audit(source, tmp_path / "out")
    assert metrics["train"]["clean"] == 1 and metrics["test"]["clean"] == 1


def test_a_file_without_a_sound_row_is_an_error(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", [{**ROW, "answer": "Many."}])
    with pytest.raises(UserError, match="every row was rejected, the first because the last line"):
        TASK.audit(source, tmp_path / "out")


# ------------------------------------------------------------------------------ examples


def test_validation_rows_are_drawn_by_the_seed_and_do_not_depend_on_the_other_rows() -> None:
    ids = [f"q{number}" for number in range(300)]
    val = draw(ids, 60, 0)
    assert len(val) == 60 and val < set(ids)
    assert draw(ids[::-1], 60, 0) == val != draw(ids, 60, 1)
    gone = set(sorted(val)[:5])
    assert draw([name for name in ids if name not in gone], 55, 0) == val - gone


@pytest.mark.parametrize("annotations", ["keep", "strip", "execute"])
def test_examples_hold_the_answer_in_the_form_asked_for(tmp_path: Path, annotations: str) -> None:
    params = chosen("gsm8k-sample", train=8, val=3, test=4, options={"annotations": annotations})
    TASK.fetch(params, tmp_path / "fetch")
    TASK.audit(tmp_path / "fetch", tmp_path / "audit")
    examples = {split: [*TASK.examples(params, split, tmp_path / "audit")] for split in SPLITS}
    sizes = {split: len(examples[split]) for split in SPLITS}
    assert sizes == {"train": 8, "val": 3, "test": 4}
    assert TASK.measure(examples["train"])["without_steps"] == 0
    for example in examples["train"]:
        target = TASK.target(example)
        assert ("<<" in target) == (annotations != "strip")
        assert target.endswith(f"\n#### {example['target_answer']}")
        assert score(target, {**example, "tolerance": 0.01}).correct


def test_more_validation_rows_than_there_are_is_one_line(tmp_path: Path) -> None:
    source = write_files(tmp_path / "in", [ROW])
    TASK.audit(source, tmp_path / "audit")
    with pytest.raises(UserError, match=r"datasets\.gsm8k\.val: 500 of the 1 rows of train"):
        next(iter(TASK.examples(chosen("gsm8k"), "train", tmp_path / "audit")))


# ------------------------------------------------------------------------------ all real rows


def test_the_pinned_blobs_are_those_of_the_shared_files(gsm8k_dir: Path) -> None:
    dataset = chosen("gsm8k").selected_dataset
    assert dataset.source == "hub"
    assert {name: git_blob_id(gsm8k_dir / name) for name in FILES.values()} == dataset.blobs


@pytest.mark.parametrize("annotations", ["keep", "strip", "execute"])
def test_every_real_gold_answer_is_right_under_both_extractions(
    gsm8k_dir: Path, annotations: Any
) -> None:
    counted = 0
    for name in FILES.values():
        for row in load_rows(gsm8k_dir / name):
            example = made(row, annotations)
            for text in (row["answer"], TASK.target(example)):
                verdict = score(text, example)
                assert verdict.status == "scored"
                assert verdict.answer_strict and verdict.answer_lenient, row["id"]
            counted += verdict.correct
    assert counted == 8792


def test_real_annotations_are_executed_again_and_all_but_three_agree(
    gsm8k_dir: Path, tmp_path: Path
) -> None:
    metrics = TASK.audit(gsm8k_dir, tmp_path)
    assert {split: metrics[split]["clean"] for split in FILES} == {"train": 7473, "test": 1319}
    counts = {split: metrics[split]["annotations"] for split in FILES}
    assert {split: found["total"] for split, found in counts.items()} == {
        "train": 23716,
        "test": 4282,
    }
    listed = {
        (row["id"], row["expression"]) for row in read_jsonl(tmp_path / "disagreements.jsonl")
    }
    assert listed == {
        ("gsm8k-train-00395", "560//10"),
        ("gsm8k-train-04170", "180//3"),
        ("gsm8k-test-00320", "3/4"),  # states 3/4
    }


def test_real_ids_are_the_place_in_the_file(gsm8k_dir: Path) -> None:
    rows = load_rows(gsm8k_dir / "test.jsonl")
    assert rows[0]["id"] == "gsm8k-test-00001" and rows[-1]["id"] == "gsm8k-test-01319"
    assert strict_answer(rows[0]["answer"]) == "18"


def test_a_second_row_with_an_id_is_rejected() -> None:
    rows = [{"id": "q", "question": f"{i}?", "answer": "#### 1"} for i in range(3)]
    splits = {"train": rows, "test": [{**rows[0], "id": "t", "question": "t?"}]}
    found = audit_splits(splits, {split: _Profile() for split in splits}, let_go)
    assert [row.reason for row in found.rejected] == ["duplicate_id"] * 2

"""Claims about the rows that the generator is trained on, and about the limits of their lengths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from toys import (
    COLOUR_QUESTIONS,
    COLOUR_TOKENIZER,
    PARAMS,
    colour_pairs,
    colour_question,
)

from posttrain.core.errors import UserError
from posttrain.core.files import write_jsonl
from posttrain.core.not_trained import NothingToTrain
from posttrain.generator.data import (
    Data,
    prompt_completion_rows,
    prompt_rows,
)
from posttrain.generator.run import Answers
from posttrain.models.tokens import SEPARATOR

OUTCOMES = {"0": [True, False], "1": [True, True], "2": [False, False], "5": [False, True]}


def sample(question: str, right: bool | None) -> dict[str, Any]:
    """A sampled answer; `right` is None if the question cannot be scored."""
    status = "unscorable" if right is None else "scored"
    return {"id": question, "correct": bool(right), "status": status}


SAMPLES = [sample(name, right) for name, both in OUTCOMES.items() for right in both]


def data(folder: Path, examples: Any = COLOUR_QUESTIONS, samples: Any = SAMPLES) -> Data:
    """The data of a training run with these samples of the SFT generator."""
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "samples.jsonl", samples)
    limits = {"max_prompt_tokens": 32, "max_candidate_tokens": 8}
    model = PARAMS.selected_model.model_copy(update=limits)
    return Data(examples, COLOUR_TOKENIZER, model, folder, folder)


def test_labels_are_the_completion_with_its_end_and_nothing_else() -> None:
    rows, dropped = prompt_completion_rows(COLOUR_QUESTIONS[:1], COLOUR_TOKENIZER, 32, 8)
    (row,) = rows
    labels = [label for label in row["labels"] if label != -100]
    assert COLOUR_TOKENIZER.decode(labels) == f"{SEPARATOR}red{COLOUR_TOKENIZER.eos_token}"
    assert row["input_ids"][-len(labels) :] == labels
    prompt = COLOUR_TOKENIZER.decode(row["input_ids"][: -len(labels)])
    assert prompt == "<bos>which colour has red ?"
    assert not dropped


def test_an_overlong_example_is_dropped_from_training_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [colour_question("long", "red" * 9), COLOUR_QUESTIONS[0]]
    rows, dropped = prompt_completion_rows(long, COLOUR_TOKENIZER, 64, 8)
    assert len(rows) == 1 and dropped == ["long"]
    assert len(data(tmp_path, long).gold_answers()) == 1
    assert capsys.readouterr().out == "1 training questions, 1 dropped as too long\n"
    with pytest.raises(
        UserError, match="none of the 2 training questions fits max_prompt_tokens=2 "
    ):
        prompt_completion_rows(long, COLOUR_TOKENIZER, 2, 8)


def test_an_overlong_example_is_an_error_in_validation() -> None:
    answers = Answers(PARAMS, COLOUR_TOKENIZER)
    long = [COLOUR_QUESTIONS[0], colour_question("long", "red" * 3000)]
    with pytest.raises(
        UserError, match=r"1 of 2 prompts exceed max_prompt_tokens=2048, the first is long with \d+"
    ):
        answers.prompts(long)
    assert [example["id"] for example in answers.fitting(long, ["direct"])] == ["0"]


def test_prompt_rows_say_which_example_they_are_of_when_others_are_dropped() -> None:
    long = [colour_question("long", "red" * 30), COLOUR_QUESTIONS[1]]
    rows, dropped = prompt_rows(long, COLOUR_TOKENIZER, 32)
    assert rows == [{"prompt": "which colour has green ?", "example": 1}]
    assert dropped == ["long"]


def test_mixed_questions_are_those_with_right_and_wrong_samples(tmp_path: Path) -> None:
    rows = data(tmp_path).prompts("mixed")
    assert [row["example"] for row in rows] == [0, 5]
    assert len(data(tmp_path).prompts("all")) == len(COLOUR_QUESTIONS)


def test_gold_answers_may_be_those_of_mixed_questions(tmp_path: Path) -> None:
    rows = data(tmp_path)
    everything = rows.gold_answers()
    assert rows.gold_answers("mixed") == [everything[0], everything[5]]


def test_all_questions_need_no_samples(tmp_path: Path) -> None:
    assert len(data(tmp_path, samples=[]).prompts("all")) == len(COLOUR_QUESTIONS)


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ({"0": [True, True], "1": [True]}, "of 2 sampled questions, 2 with right answers only"),
        ({"0": [False], "1": [False]}, "of 2 sampled questions, 2 with wrong answers only"),
        (
            {"0": [True], "1": [False, False], "2": [None]},
            "of 3 sampled questions, 1 with right answers only, 1 with wrong answers only, 1 unscorable",
        ),
        ({}, "no question was sampled"),
    ],
)
def test_without_mixed_questions_there_is_nothing_to_train_on_and_the_reason_counts_them(
    outcomes: dict[str, list[bool | None]], told: str, tmp_path: Path
) -> None:
    samples = [sample(name, right) for name, rights in outcomes.items() for right in rights]
    with pytest.raises(NothingToTrain) as caught:
        data(tmp_path, samples=samples).prompts("mixed")
    with pytest.raises(NothingToTrain, match=re.escape(str(caught.value))):
        data(tmp_path, samples=samples).gold_answers("mixed")
    assert str(caught.value) == f"no question to ask (prompts: mixed): {told}"


def test_without_a_training_pair_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    rows, pair = data(tmp_path), {"id": "0", "variant": "direct", "chosen": "red"}
    write_jsonl(tmp_path / "train.jsonl", [])
    with pytest.raises(
        NothingToTrain, match=r"^no preference pair: of 4 sampled questions, 2 with right and wrong"
    ):
        rows.pairs("train")
    write_jsonl(tmp_path / "train.jsonl", [{**pair, "rejected": "blue" * 30}])
    with pytest.raises(NothingToTrain, match=r"^all 1 preference pairs for training exceed"):
        rows.pairs("train")
    for held_out in ([], [{**pair, "rejected": "blue" * 30}]):
        write_jsonl(tmp_path / "held_out.jsonl", held_out)
        assert rows.pairs("held_out") == []


def test_questions_that_are_all_too_long_are_nothing_to_ask(tmp_path: Path) -> None:
    long = [colour_question("long", "red" * 60)]
    for which in ("all", "mixed"):
        with pytest.raises(NothingToTrain, match="none of the 1 training questions fits"):
            data(tmp_path, long).prompts(which)


def test_a_pair_is_tokenised_as_prompts_and_answers_are() -> None:
    (row, *_) = colour_pairs()
    (other, *_) = prompt_completion_rows(COLOUR_QUESTIONS[:1], COLOUR_TOKENIZER, 32, 8)[0]
    assert row["prompt_ids"] + row["chosen_ids"] == other["input_ids"]


def test_a_pair_has_the_prompt_that_its_answers_were_sampled_from(tmp_path: Path) -> None:
    asked = {**COLOUR_QUESTIONS[0], "prompts": {"direct": "colour ?", "reflective": "really ?"}}
    pair = {"id": "0", "variant": "reflective", "chosen": "red", "rejected": "blue"}
    write_jsonl(tmp_path / "train.jsonl", [pair])
    (row,) = data(tmp_path, [asked]).pairs("train")
    assert COLOUR_TOKENIZER.decode(row["prompt_ids"]) == "<bos>really ?"
    assert COLOUR_TOKENIZER.decode(row["chosen_ids"]) == "\nred<eos>"
    assert COLOUR_TOKENIZER.decode(row["rejected_ids"]) == "\nblue<eos>"

"""The generated data set: properties of every row for any seed."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import write_json
from posttrain.core.params import Params, check_params
from posttrain.tasks.finqa.audit import audit_splits
from posttrain.tasks.finqa.fetch import fetch
from posttrain.tasks.finqa.load import check_structure
from posttrain.tasks.finqa.program import OPERATIONS, execute, parse
from posttrain.tasks.finqa.sample import generate, pages, vocabulary
from posttrain.tasks.finqa.sample.kinds import PRETRAINED, Levels
from posttrain.tasks.finqa.sample.questions import ask
from posttrain.tasks.finqa.sample.unseen import UNSEEN

SIZES = {"train": 1200, "val": 60, "test": 240}


def wordings(levels: Levels) -> list[re.Pattern[str]]:
    """Patterns of these kinds of questions."""
    templates = {template for level, _ in levels for kind in level for template in kind.templates}
    return [re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(text))) for text in templates]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    return generate(0, SIZES)


@pytest.fixture(scope="module")
def rows(splits: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for split in splits.values() for row in split]


def test_sizes_are_exact_and_ids_unique(splits, rows) -> None:
    assert {name: len(split) for name, split in splits.items()} == SIZES
    assert len({row["id"] for row in rows}) == len(rows)


def test_every_row_has_the_layout_of_finqa_and_executes_to_its_answer(rows) -> None:
    for row in rows:
        check_structure(row, where=row["id"])
        assert execute(parse(row["qa"]["program"]), row["table"]) == row["qa"]["exe_ans"]


def test_the_audit_finds_nothing_to_reject_and_no_leakage(splits) -> None:
    result = audit_splits(splits)
    assert result.rejected == []
    assert all(n == 0 for pair in result.metrics["leakage"].values() for n in pair.values())
    assert result.metrics["test"]["human_answer"] == {"agrees": SIZES["test"]}


def test_same_seed_gives_identical_bytes_and_another_seed_does_not(tmp_path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_json(tmp_path / name, generate(seed, {"train": 40, "test": 10}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_a_larger_split_begins_with_the_smaller_one() -> None:
    small = generate(0, {"train": 30, "test": 5})
    large = generate(0, {"train": 90, "test": 5})
    assert large["train"][:30] == small["train"]
    assert large["test"] == small["test"]


def test_companies_are_disjoint_between_splits(splits) -> None:
    tickers = [{row["filename"].split("/")[0] for row in split} for split in splits.values()]
    assert sum(map(len, tickers)) == len(set.union(*tickers))


def test_all_ten_operations_occur_and_steps_follow_finqa(rows) -> None:
    programs = [parse(row["qa"]["program"]) for row in rows]
    operations = Counter(step.op for program in programs for step in program)
    assert set(operations) == set(OPERATIONS)
    assert min(operations.values()) >= 0.005 * len(rows)
    steps = Counter(map(len, programs))
    assert set(steps) == {1, 2, 3, 4, 5}
    assert 0.5 < steps[1] / len(rows) < 0.66
    assert 0.27 < steps[2] / len(rows) < 0.4


def test_questions_of_unseen_kinds_are_their_share(rows) -> None:
    unseen = wordings(UNSEEN)
    asked = sum(any(wording.fullmatch(row["qa"]["question"]) for wording in unseen) for row in rows)
    # A known wording may hold an unseen one ("in millions, how much ..."), so the count is a little high.
    assert 0.42 < asked / len(rows) < 0.6


def test_every_unseen_kind_is_asked_and_executes() -> None:
    rng = random.Random(0)
    drawn = [pages.build_page(rng, "arbor steel inc", 2012) for _ in range(400)]
    for level, _ in UNSEEN:
        for kind in level:
            only = ((((kind,), 1.0)),)
            asked = [qa for page in drawn if (qa := ask(page, rng, only))]
            assert len(asked) >= 8, kind.name
            assert all(len(parse(qa["program"])) == kind.steps for qa in asked), kind.name
            if kind.positive:
                assert all(qa["exe_ans"] > 0 for qa in asked), kind.name


def test_no_wording_of_an_unseen_kind_is_one_of_pretraining() -> None:
    known = {template for level, _ in PRETRAINED for kind in level for template in kind.templates}
    new = [template for level, _ in UNSEEN for kind in level for template in kind.templates]
    assert not known & set(new)
    assert len(set(new)) == len(new)


def test_without_unseen_kinds_every_question_is_worded_as_in_pretraining() -> None:
    known = wordings(PRETRAINED)
    for row in generate(0, {"train": 60, "test": 20}, unseen=0.0)["train"]:
        assert any(wording.fullmatch(row["qa"]["question"]) for wording in known)


def test_a_projection_starts_from_the_last_two_years_of_the_table() -> None:
    rng = random.Random(1)
    (level,) = ((kind,) for kinds, _ in UNSEEN for kind in kinds if kind.name == "same_rate_again")
    for _ in range(60):
        page = pages.build_page(rng, "arbor steel inc", 2012)
        qa = ask(page, rng, ((level, 1.0),))
        if qa:
            (step, _) = parse(qa["program"])
            last = max(page.years)
            literals = [item.literals for item in page.items if last in item.literals]
            assert [step.arg1, step.arg2] in [[line[last], line.get(last - 1)] for line in literals]


def test_yes_and_no_are_both_common(rows) -> None:
    answers = Counter(a for row in rows if isinstance(a := row["qa"]["exe_ans"], str))
    assert min(answers["yes"], answers["no"]) > 0.35 * answers.total() > 0


def test_gold_facts_quote_the_page_and_contain_the_operands(rows) -> None:
    for row in rows:
        texts = row["pre_text"] + row["post_text"]
        for key, fact in row["qa"]["gold_inds"].items():
            source, index = key.split("_")
            if source == "text":
                assert fact == texts[int(index)]
            else:
                assert row["table"][int(index)][0] in fact
        words = set(" ".join(row["qa"]["gold_inds"].values()).replace(",", " ").split())
        for step in parse(row["qa"]["program"]):
            for operand in (step.arg1, step.arg2):
                if operand[0].isdigit():
                    assert operand in words or f"{operand}." in words


def test_pages_hold_distractors(rows) -> None:
    numbers = [
        len(re.findall(r"\d[\d.]*", " ".join(sum(row["table"][1:], row["pre_text"]))))
        for row in rows
    ]
    used = [len(row["qa"]["gold_inds"]) for row in rows]
    assert sum(numbers) > 5 * sum(used)


def test_every_kind_has_at_least_six_paraphrases_and_valid_holes() -> None:
    for level, _ in (*PRETRAINED, *UNSEEN):
        for kind in level:
            assert len(set(kind.templates)) >= 6, kind.name
            assert all(template.endswith("?") for template in kind.templates), kind.name


def test_operand_strings_identify_their_place_on_the_page(rows) -> None:
    repeated = 0
    for row in rows:
        cells = [cell.split(" (")[0] for line in row["table"][1:] for cell in line[1:]]
        repeated += len(set(cells)) < len(cells)
    assert repeated < 0.1 * len(rows)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_any_seed_gives_a_page_with_a_rectangular_table(seed: int) -> None:
    page = pages.build_page(random.Random(seed), "arbor steel inc", 2012)
    assert len({len(line) for line in page.table}) == 1
    assert len(page.table) >= 3
    for item in page.items:
        assert set(item.literals) == set(item.keys)


def test_vocabulary_is_wide_and_safe_for_table_operations() -> None:
    labels = [label for section in vocabulary.SECTIONS for label in section.labels]
    assert len(set(labels)) >= 150
    assert not any(set(label) & set("(),|#") for label in labels)


def chosen(**changes: Any) -> Params:
    """The project's params with the entry of `sample` changed."""
    values = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    values["datasets"]["sample"] |= changes
    return check_params(values)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unsen": 0.5}, "unsen: unknown parameter; did you mean 'unseen'"),
        ({"unseen": 1.5}, "unseen: "),
        ({}, "unseen: missing"),
    ],
)
def test_a_mistake_in_the_options_of_the_sample_is_one_line(
    tmp_path: Path, options: Any, problem: str
) -> None:
    with pytest.raises(
        UserError, match=rf"datasets\.sample\.options: {re.escape(problem)}"
    ) as caught:
        fetch(chosen(options=options), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_share_of_unseen_kinds_reaches_the_generator(tmp_path: Path) -> None:
    for share in (0.0, 0.5):
        params = chosen(train=40, val=1, test=1, options={"unseen": share})
        fetch(params, tmp_path / str(share))
        rows = json.loads((tmp_path / str(share) / "train.json").read_text())
        wanted = generate(
            params.selected_dataset.seed, {"train": 40, "val": 1, "test": 1}, unseen=share
        )["train"]
        assert rows == wanted

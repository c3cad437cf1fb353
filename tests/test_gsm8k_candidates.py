"""Claims about GSM8K's pools: changes are carried through, and the candidates alone do not reveal which is correct."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from workspace import ROOT, rewarded_pools

from posttrain.core.params import Params, Pools, load_params
from posttrain.pools.blind import blind_baselines
from posttrain.pools.rewards import summarise_pools
from posttrain.tasks import Candidate, get_task
from posttrain.tasks.gsm8k.candidates import collect_habits, make_candidates
from posttrain.tasks.gsm8k.examples import make_example
from posttrain.tasks.gsm8k.load import load_rows
from posttrain.tasks.gsm8k.sample import generate
from posttrain.tasks.gsm8k.score import score
from posttrain.tasks.gsm8k.solution import Change, carry, read_solution, write
from posttrain.tasks.rendering import render

K = 8
TASK = get_task("gsm8k")
PARAMS = load_params(ROOT / "params.yaml")
ROWS = generate(3, {"train": 500, "test": 250})
TEXT = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48 + 24 = <<48+24=72>>72 clips altogether."
)
Examples = dict[str, list[dict[str, Any]]]


def rendered(row: dict[str, Any], annotations: Any = "keep") -> dict[str, Any]:
    return render(TASK, make_example(row, annotations), (), 0.01)


def examples_of(rows: dict[str, list[Any]], annotations: Any = "keep") -> Examples:
    return {
        split: [
            rendered({"id": f"{split}-{number}", **row}, annotations)
            for number, row in enumerate(of_split)
        ]
        for split, of_split in rows.items()
    }


def with_candidates(**changes: Any) -> Params:
    chosen = Pools.model_validate({**PARAMS.pools.model_dump(), **changes})
    return PARAMS.model_copy(update={"pools": chosen})


def rewarded(examples: Examples, params: Params = PARAMS) -> dict[str, list[list[dict[str, Any]]]]:
    return rewarded_pools(TASK, params, examples)


@pytest.fixture(scope="module")
def pools() -> dict[str, list[list[dict[str, Any]]]]:
    return rewarded(examples_of(ROWS))


# ------------------------------------------------------------------------------ changes


def changed(text: str, answer: str, change: Change) -> tuple[str, Fraction]:
    solution = read_solution(text, answer)
    results = carry(solution, change)
    return write(solution, change, results), results[-1]


def test_another_number_is_carried_through_to_the_end() -> None:
    assert changed(TEXT, "72", Change({Fraction(48): Fraction(40)})) == (
        "Natalia sold 40/2 = <<40/2=20>>20 clips in May.\n"
        "Natalia sold 40 + 20 = <<40+20=60>>60 clips altogether.",
        60,
    )


def test_another_operation_shows_in_words_and_annotation() -> None:
    text, final = changed(TEXT, "72", Change(operators={(1, 1): "*"}))
    assert "48 * 24 = <<48*24=1152>>1152 clips" in text and final == 1152


def test_a_dropped_step_takes_its_line_and_leaves_a_number_that_went_into_it() -> None:
    assert changed(TEXT, "72", Change(dropped={0: Fraction(48)})) == (
        "Natalia sold 48 + 48 = <<48+48=96>>96 clips altogether.",
        96,
    )


def test_cents_and_thousands_commas_are_kept() -> None:
    text = "He pays 3*$12.50 = $<<3*12.50=37.50>>37.50 of the $1,200."
    assert changed(text, "37.50", Change({Fraction(3): Fraction(5)}))[0] == (
        "He pays 5*$12.50 = $<<5*12.50=62.50>>62.50 of the $1,200."
    )
    text = "So 2*600=<<2*600=1200>>1,200 it is."
    assert changed(text, "1200", Change({Fraction(600): Fraction(900)}))[0] == (
        "So 2*900=<<2*900=1800>>1,800 it is."
    )


def test_words_that_would_contradict_another_operation_forbid_it() -> None:
    assert read_solution("48 clips / 2 months = <<48/2=24>>24", "24").changeable == frozenset()
    assert read_solution("half of them is <<48/2=24>>24", "24").changeable == {(0, 1)}


def test_an_answer_without_calculations_can_still_be_changed() -> None:
    assert changed("There are 7 days.", "7", Change({Fraction(7): Fraction(9)}))[1] == 9


@pytest.mark.parametrize("row", ROWS["train"][:150], ids=lambda row: "")
def test_no_change_leaves_the_text_as_it_is(row: dict[str, str]) -> None:
    reasoning, _, answer = row["answer"].rpartition("\n#### ")
    assert changed(reasoning, answer, Change()) == (reasoning, Fraction(answer))


@given(st.sampled_from(ROWS["train"]), st.data())
def test_every_carried_change_is_arithmetically_right_and_ends_with_its_last_step(
    row: dict[str, str], data: st.DataObject
) -> None:
    example = rendered({"id": "q", **row})
    solution = read_solution(example["solution"], example["target_answer"])
    given_number = data.draw(st.sampled_from(solution.givens))
    value = Fraction(data.draw(st.integers(1, 500)))
    results = carry(solution, Change({given_number: value}))
    if all((result * 10_000).denominator == 1 for result in results):
        text = write(solution, Change({given_number: value}), results)
        verdict = score(f"{text}\n#### {float(results[-1]):.4f}", example)
        assert verdict.parts["program_valid"] == 1.0 and verdict.self_consistent, text


# ------------------------------------------------------------------------------ pools


def test_a_pool_has_k_distinct_candidates_gold_once_and_nothing_else_that_is_right(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    for pool in pools["train"] + pools["test"]:
        assert len({made["text"] for made in pool}) == K
        assert [made["kind"] for made in pool].count("gold") == 1
        assert all(made["correct"] == (made["kind"] == "gold") for made in pool)


def test_gold_has_the_best_reward_and_no_fixed_place(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    for pool in pools["train"]:
        gold = next(made for made in pool if made["kind"] == "gold")
        assert gold["reward"] == 1.0
        assert all(made["reward"] < gold["reward"] for made in pool if made is not gold)
    summary = summarise_pools(pools["train"])
    assert chisquare(list(summary["gold_slots"].values())).pvalue > 1e-3


def test_nearly_all_wrong_candidates_are_right_arithmetic_and_end_with_their_last_step(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    wrong = [made for pool in pools["train"] for made in pool if made["kind"] != "gold"]
    sound = [made for made in wrong if made["failure"] == "wrong_answer"]
    assert len(sound) > 0.9 * len(wrong)
    assert all(made["consistent"] for made in sound)


def test_every_edit_occurs_and_the_corrupted_are_about_their_rate(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    summary = summarise_pools(pools["train"])
    assert summary["edits"].keys() == {
        *("gold", "other_number", "copying_slip", "noise", "swap"),
        *("operation", "dropped_step", "random_answer", "format_error"),
    }
    share = summary["kinds"]["corrupted"] / (7 * summary["pools"])
    assert share == pytest.approx(PARAMS.pools.corruption_rate, abs=0.05)


def test_a_pool_depends_on_the_seed_and_the_example_alone() -> None:
    examples = examples_of({"train": ROWS["train"][:40]})["train"]
    habits = collect_habits(examples)
    settings: dict[str, Any] = {"count": K, "corruption_rate": 0.3, "noise": (0.05, 0.15)}

    def made(number: int, seed: int) -> list[Candidate]:
        return make_candidates(examples[number], habits, seed=seed, **settings)

    assert made(3, 0) == made(3, 0) != made(3, 1)


@pytest.mark.parametrize("annotations", ["strip", "execute"])
def test_pools_are_made_for_every_form_of_answers(annotations: str) -> None:
    examples = examples_of({"train": ROWS["train"][:60]}, annotations)
    for pool in rewarded(examples)["train"]:
        assert len({made["text"] for made in pool}) == K
        assert sum(made["correct"] for made in pool) == 1
        assert annotations == "execute" or not any("<<" in made["text"] for made in pool)


@pytest.mark.parametrize("answer", ["I know it.\n#### 4", "#### 0", "so <<0-5=-5>>-5\n#### -5"])
def test_an_answer_with_little_to_change_gets_a_full_pool_too(answer: str) -> None:
    rows = {"train": [*ROWS["train"][:30], {"question": "how many?", "answer": answer}]}
    pool = rewarded(examples_of(rows), with_candidates(count=16))["train"][-1]
    assert len({made["text"] for made in pool}) == 16
    assert sum(made["correct"] for made in pool) == 1


def test_no_rule_that_reads_only_the_candidates_wins(
    pools: dict[str, list[list[dict[str, Any]]]],
) -> None:
    rates = blind_baselines(pools["train"], {"test": pools["test"]})["test"]
    assert max(rates.values()) < 0.35, rates


# ------------------------------------------------------------------------------ real GSM8K


def test_no_rule_wins_on_real_pools_and_these_are_distinct(gsm8k_dir: Path) -> None:
    rows = {
        split: load_rows(gsm8k_dir / f"{split}.jsonl")[:size]
        for split, size in (("train", 700), ("test", 300))
    }
    examples = {split: [rendered(row) for row in found] for split, found in rows.items()}
    real = rewarded(examples)
    for pool in real["train"] + real["test"]:
        assert len({made["text"] for made in pool}) == K
        assert sum(made["correct"] for made in pool) == 1
    assert chisquare(list(summarise_pools(real["train"])["gold_slots"].values())).pvalue > 1e-3
    rates = blind_baselines(real["train"], {"test": real["test"]})["test"]
    assert max(rates.values()) < 0.35, rates


def test_no_change_leaves_every_real_text_as_it_is(gsm8k_dir: Path) -> None:
    different = Counter[str]()
    for row in load_rows(gsm8k_dir / "test.jsonl"):
        example = make_example(row, "keep")
        solution = read_solution(example["solution"], example["target_answer"])
        text = write(solution, Change(), carry(solution, Change()))
        closed = re.sub(r"<<.*?>>", lambda note: note[0].replace(" ", ""), example["solution"])
        different[str(text == closed)] += 1
    assert different == {"True": 1319}

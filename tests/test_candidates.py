"""Pools of candidates: their content and order, and that they do not reveal the correct one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from scipy.stats import chisquare
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.pools.make import make_pools
from posttrain.tasks import Candidate, get_task
from posttrain.tasks.finqa.candidates import collect_shapes, make_candidates
from posttrain.tasks.finqa.score import score

K = 8
FORMS = ("cells", "literal")
TASK = get_task("finqa")
PARAMS = load_params(ROOT / "params.yaml")
Examples = dict[str, list[dict[str, Any]]]
Pool = Sequence[Candidate]


def build_all(
    train: list[dict[str, Any]], others: list[dict[str, Any]], **changes: Any
) -> tuple[list[Pool], list[Pool]]:
    """Pools of both splits, learned from the first, with some settings changed."""
    params = PARAMS.model_copy(update={"pools": PARAMS.pools.model_copy(update=changes)})
    made = {
        split: [[Candidate(c["text"], c["kind"], c["edit"]) for c in r["candidates"]] for r in rows]
        for split, rows in make_pools(TASK, params, {"train": train, "test": others})
    }
    return made["train"], made["test"]


def build(examples: list[dict[str, Any]], **changes: Any) -> list[Pool]:
    return build_all(examples, [], **changes)[0]


@pytest.fixture(scope="module")
def pools(generated_examples: Examples) -> dict[str, list[Pool]]:
    return {form: build(generated_examples[form]) for form in FORMS}


def example(program: str, answer: float | str, **changes: Any) -> dict[str, Any]:
    """A page of two rows and two years."""
    table = [["", "2019", "2018"], ["revenue", "120", "100"], ["cost", "70", "60"]]
    return {
        "id": "hand",
        "question": "?",
        "input_text": "?",
        "target_program": program,
        "literal_program": program,
        "target_answer": str(answer),
        "exe_ans": answer,
        "table": table,
        "references": {
            "A2": "revenue",
            "B2": "120",
            "C2": "100",
            "A3": "cost",
            "B3": "70",
            "C3": "60",
        },
        "operands": "literal",
        "tolerance": 0.01,
        "prompts": {"direct": "?"},
    } | changes


@pytest.mark.parametrize("form", FORMS)
def test_a_pool_has_exactly_k_distinct_candidates_and_one_gold(
    form: str, pools: dict[str, list[Pool]], generated_examples: Examples
) -> None:
    for pool, row in zip(pools[form], generated_examples[form], strict=True):
        assert len({made.text for made in pool}) == len(pool) == K
        (gold,) = (made for made in pool if made.kind == "gold")
        stated = json.loads(gold.text)
        assert ", ".join(stated["program"]) == row["target_program"]
        assert stated["answer"] == row["target_answer"]


@pytest.mark.parametrize("form", FORMS)
def test_gold_is_in_every_place_equally_often(form: str, pools: dict[str, list[Pool]]) -> None:
    places = Counter([made.kind for made in pool].index("gold") for pool in pools[form])
    assert chisquare([places[place] for place in range(K)]).pvalue > 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_nothing_but_gold_and_its_formatting_variant_executes_to_the_answer(
    form: str, pools: dict[str, list[Pool]], generated_examples: Examples
) -> None:
    variants = 0
    for pool, row in zip(pools[form], generated_examples[form], strict=True):
        for made in pool:
            right = score(made.text, row).correct
            assert right == (made.edit in ("gold", "format")), made
            variants += made.edit == "format"
    assert variants > 0


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_what_the_programs_say_but_where_that_is_the_edit(
    form: str, pools: dict[str, list[Pool]], generated_examples: Examples
) -> None:
    broken = {"format_error", "random_answer"}
    for pool, row in zip(pools[form], generated_examples[form], strict=True):
        for made in pool:
            if made.edit not in broken | {"format"}:
                assert score(made.text, row).self_consistent, made


def test_a_format_error_is_unparseable_and_nothing_else_is(
    pools: dict[str, list[Pool]], generated_examples: Examples
) -> None:
    for pool, row in zip(pools["cells"], generated_examples["cells"], strict=True):
        for made in pool:
            if made.edit != "format_error":
                assert score(made.text, row).status == "scored", made


def test_both_operand_forms_name_what_is_on_the_page(
    pools: dict[str, list[Pool]], generated_examples: Examples
) -> None:
    cells = json.loads(next(made.text for made in pools["cells"][0] if made.kind == "gold"))
    references = generated_examples["cells"][0]["references"]
    literal = json.loads(next(made.text for made in pools["literal"][0] if made.kind == "gold"))
    assert cells["answer"] == literal["answer"]
    assert any(name in "".join(cells["program"]) for name in references)
    assert generated_examples["literal"][0]["literal_program"] == ", ".join(literal["program"])


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_corruption_rate_is_kept_but_for_pages_with_little_to_misread(
    rate: float, generated_examples: Examples
) -> None:
    pools = build(generated_examples["cells"][:150], corruption_rate=rate)
    share = sum(made.kind == "corrupted" for pool in pools for made in pool) / (150 * (K - 1))
    assert rate - 0.05 < share < rate + 0.2


def test_a_training_split_of_yes_and_no_answers_still_fills_pools(
    generated_examples: Examples,
) -> None:
    rows = generated_examples["cells"]
    yes = [row for row in rows if row["target_answer"] in ("yes", "no")][:1]
    for row in [*yes, *rows[:5]]:
        wanted = {"count": K, "corruption_rate": 0.3, "noise": (0.05, 0.15), "seed": 0}
        assert len(make_candidates(row, collect_shapes(yes), **wanted)) == K


def test_a_pool_depends_on_the_seed_and_the_id_and_not_on_its_neighbours(
    generated_examples: Examples,
) -> None:
    rows = generated_examples["cells"][:40]
    shapes = collect_shapes(rows)
    wanted = {"count": K, "corruption_rate": 0.3, "noise": (0.05, 0.15)}

    def pools(chosen: list[dict[str, Any]], seed: int) -> dict[str, Pool]:
        return {row["id"]: make_candidates(row, shapes, seed=seed, **wanted) for row in chosen}

    forward, backward = pools(rows, 0), pools(rows[::-1], 0)
    assert forward == backward
    assert forward != pools(rows, 1)


def test_the_same_seed_gives_the_same_pools(generated_examples: Examples) -> None:
    rows = generated_examples["cells"][:60]
    assert build(rows) == build(rows)
    assert build(rows) != build(rows, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 32])
def test_any_number_of_candidates_can_be_asked_for(
    count: int, generated_examples: Examples
) -> None:
    for row in generated_examples["literal"][:10]:
        pool = one_pool(row, generated_examples, count=count)
        assert len({made.text for made in pool}) == count


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_page_without_anything_to_misread_still_fills_its_pool(
    rate: float, generated_examples: Examples
) -> None:
    row = example("divide(1, 4)", 0.25, table=[], references={})
    pool = one_pool(row, generated_examples, corruption_rate=rate)
    assert len({made.text for made in pool}) == K


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_only_one_candidate_of_a_yes_or_no_question_is_right(
    answer: str, generated_examples: Examples
) -> None:
    program = "greater(120, 100)" if answer == "yes" else "greater(100, 120)"
    row = example(program, answer)
    pool = one_pool(row, generated_examples)
    right = [made.edit for made in pool if score(made.text, row).correct]
    assert right == ["gold"] and len(pool) == K


@pytest.mark.slow
def test_table_operations_get_other_rows(generated_examples: Examples) -> None:
    row = example("table_sum(revenue, none)", 220.0)
    texts = {
        made.text for seed in range(20) for made in one_pool(row, generated_examples, seed=seed)
    }
    assert any("table_sum(cost, none)" in text for text in texts)


def test_a_gold_program_that_does_not_execute_is_named(generated_examples: Examples) -> None:
    row = example("divide(1, 0)", 1.0)
    with pytest.raises(UserError, match="example hand: the gold program does not execute"):
        one_pool(row, generated_examples)


def one_pool(row: dict[str, Any], generated: Examples, **changes: Any) -> Pool:
    """The pool of one test question; shapes are those of generated training questions."""
    return build_all(generated["literal"], [row], oversample=1, **changes)[1][0]

"""Claims about the measures of written answers, on completions few enough to count by hand."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.measures.answers import (
    by_question,
    greedy_columns,
    greedy_metrics,
    majority_at_k,
    pass_at_k,
    prediction_rows,
    sampled_columns,
    sampled_metrics,
)
from posttrain.measures.crossed import crossed
from posttrain.measures.named import intervals
from posttrain.report import rerank_summary
from posttrain.report.compare import Run, compare_runs
from posttrain.report.rerank import (
    RULES,
    calculated,
    candidates,
    choose_rule,
    rerank_columns,
    rerank_metrics,
    rerank_pool,
    rerank_rows,
)
from posttrain.rollouts.record import score_completion
from posttrain.tasks import get_task

TASK = get_task("finqa")
WEIGHTS = load_params(ROOT / "params.yaml").reward.weights
EXAMPLE: dict[str, Any] = {
    "id": "hand",
    "question": "what is the growth of revenue?",
    "input_text": "revenue 120 100",
    "literal_program": "subtract(120, 100), divide(#0, 100)",
    "exe_ans": 0.2,
    "table": [["", "2019", "2018"], ["revenue", "120", "100"]],
    "references": {},
    "operands": "literal",
    "tolerance": 0.01,
    "prompts": {"direct": "revenue 120 100: what is its growth?"},
}
GOLD = '{"program": ["subtract(120, 100)", "divide(#0, 100)"], "answer": "0.2"}'


def scored(text: str, example: dict[str, Any] = EXAMPLE, **changes: Any) -> dict[str, Any]:
    about = {"variant": "direct", "index": 0, "tokens": 7, "finished": True, **changes}
    return score_completion(TASK, example, text, WEIGHTS, **about)


def draw(
    question: str, index: int, value: float | None, *, right: float = 1.0, **changes: Any
) -> dict[str, Any]:
    """A record whose program executes to `value`; None for one that cannot be parsed."""
    correct = value is not None and value == right
    return {
        "id": question,
        "variant": "direct",
        "index": index,
        "text": "{" if value is None else f'{{"answer": "{value}"}}',
        "tokens": 10 + index,
        "finished": value is not None,
        "status": "unparseable" if value is None else "scored",
        "failure": "unparseable" if value is None else None if correct else "wrong_program",
        "value": value,
        "answer": value,
        "parts": {"format_valid": float(value is not None)},
        "reward": 0.0 if value is None else 1.0 if correct else 0.2,
        "correct": correct,
        "program_correct": correct,
        "answer_strict": correct,
        "answer_lenient": correct,
        **changes,
    }


def draws(question: str, *values: float | None) -> list[dict[str, Any]]:
    return [draw(question, index, value) for index, value in enumerate(values)]


# ------------------------------------------------------------------------------ records


def test_a_record_holds_the_verdicts_of_the_one_scorer() -> None:
    right = scored(GOLD, index=3, tokens=31)
    assert {name: right[name] for name in ("id", "variant", "index", "tokens", "finished")} == {
        "id": "hand",
        "variant": "direct",
        "index": 3,
        "tokens": 31,
        "finished": True,
    }
    assert right["correct"] and right["program_correct"] and right["answer_strict"]
    assert (right["status"], right["failure"]) == ("scored", None)
    assert (right["value"], right["answer"], right["reward"]) == (0.2, 0.2, 1.0)
    assert json.loads(json.dumps(right, allow_nan=False)) == right

    by_chance = scored('{"program": ["divide(1, 5)"], "answer": "20%"}')
    assert by_chance["correct"] and not by_chance["program_correct"]
    misstated = scored('{"program": ["divide(1, 5)"], "answer": "20"}')
    assert misstated["answer_lenient"] and not misstated["answer_strict"]
    assert misstated["failure"] == "wrong_answer_only"


def test_unparseable_unscorable_and_wrong_are_told_apart() -> None:
    cut = scored(GOLD[:-1], finished=False)
    assert (cut["status"], cut["failure"], cut["reward"]) == ("unparseable", "unparseable", 0.0)
    assert scored(GOLD, {**EXAMPLE, "exe_ans": 7.0})["status"] == "unscorable"
    wrong = scored('{"program": ["add(1, 1)"], "answer": "2"}')
    assert (wrong["status"], wrong["failure"]) == ("scored", "wrong_program")


@pytest.mark.parametrize(
    "text", ["\ud800", '{"program": ["add(\\ud800, 1)"], "answer": "\\ud800"}']
)
def test_no_record_of_an_odd_text_holds_more_of_it_than_its_text(text: str) -> None:
    record = scored(text)
    del record["text"]
    assert json.dumps(record, ensure_ascii=False, allow_nan=False).encode()


def test_a_draw_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(UserError, match="a: sample 0 of variant direct occurs twice"):
        by_question([draw("a", 0, 1.0), draw("a", 0, 1.0)])


# ------------------------------------------------------------------------------ greedy


def test_greedy_rates_are_over_the_whole_split() -> None:
    records = [
        scored(GOLD),
        scored('{"program": ["divide(1, 5)"], "answer": "20"}', {**EXAMPLE, "id": "b"}, tokens=9),
        scored("I do not know", {**EXAMPLE, "id": "c"}, finished=False),
        scored(GOLD, {**EXAMPLE, "id": "d", "exe_ans": 7.0}),
    ]
    assert greedy_metrics(records) == {
        "questions": 4,
        "execution_accuracy": 2 / 4,
        "program_accuracy": 1 / 4,
        "answer_strict": 1 / 4,
        "answer_lenient": 2 / 4,
        "format_valid": 2 / 4,
        "parsed": 2 / 4,
        "unscorable": 1 / 4,
        "unfinished": 1 / 4,
        "reward": pytest.approx((1.0 + 0.8) / 4),
        "tokens": (7 + 9 + 7 + 7) / 4,
        "failures": {"right": 1, "unparseable": 1, "unscorable": 1, "wrong_answer_only": 1},
    }


def test_nothing_to_measure_and_two_answers_to_a_question_are_errors() -> None:
    with pytest.raises(UserError, match="no completions"):
        greedy_metrics([])
    with pytest.raises(UserError, match="no completions"):
        sampled_metrics([], [1])
    with pytest.raises(UserError, match="a: 2 greedy answers"):
        greedy_columns(draws("a", 1.0, 2.0))


def test_every_interval_holds_its_value_and_rates_get_one_even_at_the_ends() -> None:
    records = [draw(str(n), 0, 1.0 if n % 3 else 2.0) for n in range(30)]
    values = greedy_metrics(records)
    for name, found in intervals(greedy_columns(records), [0.8, 0.95], 300).items():
        (low, high), (wide_low, wide_high) = found["0.8"], found["0.95"]
        assert wide_low <= low <= values[name] <= high <= wide_high
    unfinished = intervals(greedy_columns(records), [0.95], 10)["unfinished"]["0.95"]
    assert unfinished[0] == 0 and 0.05 < unfinished[1] < 0.15  # 0 of 30, by Jeffreys


# ------------------------------------------------------------------------------ samples


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(
    right: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(right)))
    subsets = list(itertools.combinations(right, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k([sum(right)], len(right), k)[0] == pytest.approx(expected)


def test_pass_at_k_needs_k_draws() -> None:
    for k in (0, 5):
        with pytest.raises(UserError, match=f"pass@{k} cannot"):
            pass_at_k([1], 4, k)


def test_the_majority_is_of_executed_answers_and_ties_go_to_the_first_drawn() -> None:
    group = draws("a", None, 3.0, 2.0, 2.0, 3.0, 2.0, None, None, None)
    assert majority_at_k(group, 1)["value"] is None  # nothing else was sampled
    assert majority_at_k(group, 2)["index"] == 1
    assert majority_at_k(group, 3)["index"] == 1  # one vote each
    assert majority_at_k(group, 4)["index"] == 2
    assert majority_at_k(group, 5)["index"] == 1  # two votes each
    assert majority_at_k(group, 9)["index"] == 2  # four that cannot be read do not outvote three


def test_different_texts_of_one_executed_answer_vote_together() -> None:
    group = draws("a", 2.0, 1.0, 1.0)
    group[2]["text"] = "another way to write it"
    assert majority_at_k(group, 3)["index"] == 1


def test_sampled_figures_count_by_hand() -> None:
    records = [*draws("a", 1.0, 1.0, 2.0, None), *draws("b", 2.0, 3.0, 3.0, 1.0)]
    found = sampled_metrics(records, [1, 2, 4])
    assert found == {
        "questions": 2,
        "samples": 4,
        "pass_at_1": pytest.approx((2 / 4 + 1 / 4) / 2),
        "pass_at_2": pytest.approx((5 / 6 + 3 / 6) / 2, abs=1e-6),
        "pass_at_4": 1.0,
        "majority_at_1": 1 / 2,
        "majority_at_2": 1 / 2,
        "majority_at_4": 1 / 2,
        "parsed": 7 / 8,
        "format_valid": 7 / 8,
        "unfinished": 1 / 8,
        "reward": pytest.approx((2.2 + 1.6) / 8),
        "tokens": 11.5,
        "distinct": 3 / 4,
    }
    columns = sampled_columns(records, [1, 2, 4])
    for name, of_level in intervals(columns, [0.95], 200).items():
        assert of_level["0.95"][0] <= found[name] <= of_level["0.95"][1]


def test_questions_with_different_numbers_of_draws_are_refused() -> None:
    with pytest.raises(UserError, match="b has 1 completions, a has 2"):
        sampled_metrics([*draws("a", 1.0, 2.0), *draws("b", 1.0)], [1])


# ------------------------------------------------------------------------------ open evaluation


def answered(name: str, *values: float | None) -> list[dict[str, Any]]:
    """Answers to a question, the greedy one first; each text is its own value."""
    return [{**made, "written": made["text"]} for made in draws(name, *values)]


def chances(group: Sequence[Mapping[str, Any]], **given: float) -> dict[str, float]:
    """Log-probability of each written text: 0, or the one given for its value (`v2=-1.0`)."""
    return {made["written"]: given.get(f"v{made['value'] or 0:.0f}", 0.0) for made in group}


def chosen_by(
    groups: Sequence[Sequence[Mapping[str, Any]]], scores: Sequence[Sequence[float]]
) -> list[dict[str, Any]]:
    return rerank_rows(groups, scores, [chances(group) for group in groups])


def test_an_answer_states_what_its_program_gives_and_keeps_what_was_written() -> None:
    slip = scored(GOLD.replace('"0.2"', '"7"'), index=3)
    told = calculated(TASK, EXAMPLE, slip, WEIGHTS)
    assert told == {**scored(GOLD, index=3), "written": slip["text"]}
    assert slip["correct"] and slip["reward"] < told["reward"] == 1.0
    scrap = scored("?")
    assert calculated(TASK, EXAMPLE, scrap, WEIGHTS) == {**scrap, "written": "?"}
    with pytest.raises(UserError, match=r"^hand: answers to other stand in its place"):
        calculated(TASK, EXAMPLE, {**scrap, "id": "other"}, WEIGHTS)


def test_identical_texts_are_one_candidate_and_scrap_is_none() -> None:
    made = candidates(answered("a", None, 2.0, 3.0, 2.0))
    assert [(c["value"], c["copies"]) for c in made] == [(2.0, 2), (3.0, 1)]
    assert [(c["value"], c["copies"]) for c in candidates(answered("a", None, None))] == [(None, 2)]


def test_a_candidate_remembers_all_that_was_written_for_it() -> None:
    first, second, third = answered("a", 2.0, 2.0, 2.0)
    (made,) = candidates(
        [{**first, "written": "x"}, {**second, "written": "y"}, third | {"written": "x"}]
    )
    assert made["copies"] == 3 and made["written"] == ["x", "y"]


def test_the_pool_holds_what_was_drawn_and_nothing_else() -> None:
    pool = rerank_pool(EXAMPLE, ["an answer", "?"])
    assert pool["id"] == "hand" and pool["prompt"] == EXAMPLE["prompts"]["direct"]
    assert [one["text"] for one in pool["candidates"]] == ["an answer", "?"]


def test_each_rule_chooses_as_defined() -> None:
    groups = [answered("a", 2.0, 2.0, 2.0, 1.0, None), answered("b", 1.0, 2.0, 3.0, 1.0, 1.0)]
    # a: the selector prefers the right one 4 : 1 to each copy of the wrong one; b: it takes a wrong one.
    scores = [[0.0, np.log(5.0)], [0.0, 0.9, 1.0]]
    # a: the generator is surer of the wrong one than the selector is of the right one; b: it knows.
    likelihoods = [
        chances(groups[0], v2=-1.0, v1=-1.0 - np.log(6.0)),
        chances(groups[1], v1=-1.0, v2=-3.0, v3=-3.0),
    ]
    rows = rerank_rows(groups, scores, likelihoods)
    chosen = {rule: [row[rule]["correct"] for row in rows] for rule in RULES}
    assert chosen == {
        "greedy": [False, True],
        "random": [1 / 2, 1 / 3],  # of the candidates, whatever their copies
        "majority": [False, True],
        "likelihood": [False, True],
        "selector": [True, False],
        "weighted_vote": [True, True],  # 5 > 3 * 1; 3 > e^1
        "product": [False, True],  # 5 / 6 < 1; 1 > e^(1 - 2)
        "oracle": [True, True],
    }
    assert [len(row["candidates"]) for row in rows] == [2, 3]
    assert rows[0]["candidates"][1] == {
        "text": groups[0][3]["text"],
        "value": 1.0,
        "copies": 1,
        "correct": True,
        "score": pytest.approx(np.log(5.0), abs=1e-6),
        "log_probability": pytest.approx(-1.0 - np.log(6.0), abs=1e-6),
    }
    assert [row["samples"] for row in rows] == [4, 4]
    found = rerank_metrics(rows)
    assert found["questions"] == 2 and found["candidates"] == 2.5
    assert found["random_reward"] == pytest.approx((1.2 / 2 + 1.4 / 3) / 2)
    assert found["selector_accuracy"] == found["product_accuracy"] == 0.5
    assert found["selector_over_random"] == pytest.approx(1 / 12, abs=1e-6)
    assert found["oracle_accuracy"] == found["oracle_reward"] == 1.0


def test_the_product_adds_the_probabilities_of_all_texts_written_for_an_answer() -> None:
    wrong, right, again = answered("a", 2.0, 1.0, 1.0)
    group = [wrong, {**right, "written": "x"}, {**again, "written": "y"}]
    for sure, expected in ((np.log(0.3), True), (np.log(0.2), False)):
        likelihoods = [{wrong["written"]: np.log(0.5), "x": sure, "y": sure}]
        (row,) = rerank_rows([group], [[0.0, 0.0]], likelihoods)
        assert row["product"]["correct"] is expected


def test_copies_outweigh_a_small_preference_in_the_vote_only() -> None:
    (row,) = chosen_by([answered("a", 1.0, 1.0, 1.0, 2.0)], [[0.0, 0.5]])
    assert not row["selector"]["correct"] and row["weighted_vote"]["correct"]


def test_a_selector_without_preference_votes_like_the_majority() -> None:
    groups = [
        answered("a", 3.0, 2.0, 1.0, 1.0),
        answered("b", 2.0, 1.0, 2.0, None),
        answered("c", None, None, 2.0, 2.0),
    ]
    rows = chosen_by(groups, [[0.0] * len(candidates(given)) for given in groups])
    assert [row["weighted_vote"] for row in rows] == [row["majority"] for row in rows]


@given(
    st.lists(st.sampled_from([None, 1.0, 2.0, 3.0]), min_size=1, max_size=6),
    st.lists(st.floats(-20, 20), min_size=6, max_size=6),
)
def test_no_rule_beats_the_oracle_and_a_shift_of_the_scores_changes_nothing(
    values: list[float | None], scores: list[float]
) -> None:
    group = answered("a", *values)
    used = scores[: len(candidates(group))]
    (row,) = chosen_by([group], [used])
    for rule in RULES:
        assert row[rule]["correct"] <= row["oracle"]["correct"]
        assert row[rule]["reward"] <= row["oracle"]["reward"] + 1e-9  # a mean rounds
    whole = [round(score) for score in used]
    (plain,), (moved,) = (
        chosen_by([group], [[score + shift for score in whole]]) for shift in (0, 64)
    )
    assert [plain[rule] for rule in RULES] == [moved[rule] for rule in RULES]


def test_the_gain_over_greedy_is_paired() -> None:
    groups = [answered(str(n), 2.0, 1.0, 2.0) for n in range(20)]
    columns = rerank_columns(chosen_by(groups, [[0.0, 1.0]] * 20))
    assert intervals(columns, [0.95], 100)["selector_over_greedy"]["0.95"] == [1.0, 1.0]


def test_scores_that_do_not_fit_the_candidates_are_an_error_that_names_the_question() -> None:
    group = answered("a", 1.0, 1.0)
    own = [chances(group)]
    with pytest.raises(UserError, match="a: the selector gave 2 scores for 1 texts"):
        rerank_rows([group], [[0.0, 1.0]], own)
    with pytest.raises(UserError, match="a: the selector gave scores that are not finite"):
        rerank_rows([group], [[float("nan")]], own)
    with pytest.raises(UserError, match="a: the generator gave no score for "):
        rerank_rows([group], [[0.0]], [{}])


def test_the_seeds_of_reranking_are_put_together_by_question() -> None:
    groups = [answered("a", 2.0, 1.0), answered("b", 1.0, 2.0), answered("c", 2.0, 2.0)]
    better, worse = [[0.0, 1.0], [1.0, 0.0], [0.0]], [[1.0, 0.0], [0.0, 1.0], [0.0]]
    choices = [chosen_by(groups, scores) for scores in (better, better, worse)]
    right = rerank_summary.accuracies(choices)
    assert right["selector"].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    lines = rerank_summary.table(right, [0, 1, 5], 300).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    seeds, gains = ["seed 0", "seed 1", "seed 5"], ["greedy", "likelihood", "random"]
    assert cells[0] == ["rule", "accuracy %", *seeds, *(f"over {rule}, points" for rule in gains)]
    (selector,) = (row for row in cells if row[0] == "selector")
    # Averaged over seeds, a gains 2/3, b loses 1/3 and c gains nothing.
    assert selector[1:6] == ["44.4", "66.7", "66.7", "0.0", "+11.1 [−33.3, +66.7]"]
    assert cells[-1][:2] == ["oracle", "66.7"]
    with pytest.raises(UserError, match="evaluated on different questions"):
        rerank_summary.accuracies([choices[0], choices[1][:2]])


def test_the_reported_rule_is_the_best_of_those_that_ask_the_selector_and_in_a_tie_the_simplest() -> (
    None
):
    # Copies outvote a small preference of the selector, so that the vote alone is right here ...
    vote = [answered("a", 1.0, 1.0, 1.0, 2.0), answered("b", 2.0, 1.0)]
    rows = chosen_by(vote, [[0.0, 0.5], [1.0, 0.0]])
    rows[0]["product"]["correct"] = False
    assert choose_rule(rows) == "weighted_vote"
    # ... and greedy is right on both, but does not ask.
    rows[1]["greedy"]["correct"] = True
    assert choose_rule(rows) == "weighted_vote"
    rows[1]["product"]["correct"] = True
    assert choose_rule(rows) == "weighted_vote"  # 1 and 1
    rows[1]["selector"]["correct"] = True
    assert choose_rule(rows) == "selector"  # all 1


def test_the_gain_of_the_chosen_rule_is_over_trainings_from_three_seeds_on_else_of_these_models() -> (
    None
):
    rng = np.random.default_rng(0)
    right = {rule: (rng.random((3, 400)) < 0.5).astype(float) for rule in RULES}
    chosen = np.stack([right["product"][0], right["selector"][1], right["product"][2]])
    right["greedy"] = chosen * (rng.random((3, 400)) < [[0.7], [0.8], [0.9]])
    text = rerank_summary.chosen_text(right, ["product", "selector", "product"], [0, 1, 4], 300)
    assert "product (seed 0), selector (seed 1) and product (seed 4)" in text
    assert "of other trainings and other questions" in text
    gained = chosen - right["greedy"]
    found = crossed(gained)
    assert found is not None
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in found.interval(0.95))
    assert f"{100 * gained.mean():+.1f} | [{low}, {high}]" in text
    assert f"| {4 * found.p:.3f} |" in text  # Holm: the smallest of four

    two = {rule: of[:2] for rule, of in right.items()}
    text = rerank_summary.chosen_text(two, ["product", "selector"], [0, 1], 300)
    assert "of these models alone" in text and "other trainings need 3 seeds" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| greedy"))
    assert float(line.split("|")[4]) < 0.01 < 4 * found.p


def test_reranking_of_a_seed_that_did_not_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="rerank/0: missing; run dvc repro rerank"):
        rerank_summary.main()


# ------------------------------------------------------------------------------ comparison


def test_compare_pairs_generators_like_selectors() -> None:
    before = prediction_rows("test", [draw("a", 0, 1.0), draw("b", 0, 2.0), draw("c", 0, None)])
    greedy = [draw("a", 0, 1.0), draw("b", 0, 1.0), draw("c", 0, 2.0)]
    groups = [draws("a", 1.0, 1.0), draws("b", 1.0, 2.0), draws("c", 2.0, None)]
    after = prediction_rows("test", greedy, groups)
    found = compare_runs("generator", [Run("sft", 0, before), Run("ppo", 0, after)], 100)
    sft, ppo = found.results["sft"], found.results["ppo"]
    assert sft.values["accuracy"].value == pytest.approx(1 / 3)
    assert sft.values["expected_reward"].value == sft.values["reward"].value
    assert sft.values["reward"].value == pytest.approx(1.2 / 3)
    assert ppo.changes["sft"]["accuracy"].value == pytest.approx(1 / 3)
    assert ppo.changes["sft"]["reward"].value == pytest.approx((0 + 0.8 + 0.2) / 3)
    assert ppo.values["expected_reward"].value == pytest.approx((1 + 0.6 + 0.1) / 3)
    assert ppo.values["sample_accuracy"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert {name: kind.share.value for name, kind in found.kinds["ppo"].items()} == {
        "right": pytest.approx(2 / 3),
        "wrong_program": pytest.approx(1 / 3),
    }


def test_draws_of_another_question_are_refused() -> None:
    with pytest.raises(UserError, match="a: its greedy answer"):
        prediction_rows("test", [draw("a", 0, 1.0)], [draws("b", 1.0)])

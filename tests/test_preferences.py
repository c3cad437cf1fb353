"""Claims about prompt variants and preference pairs, on samples few enough to pair by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.core.errors import UserError
from posttrain.core.params import PairQuality, Pairs, Variant
from posttrain.rollouts.plots import plot_margins
from posttrain.rollouts.preferences import (
    Pair,
    make_pairs,
    qualities,
    split_held_out,
    statistics,
)
from posttrain.tasks import get_task

TASK = get_task("finqa")
VARIANTS: tuple[Variant, ...] = ("direct", "reflective", "deliberative")
CONFIG = Pairs(
    pairs_per_question=2,
    quality=PairQuality(
        program_valid=0.4, format_valid=0.4, steps_used=0.2, no_repetition=0.2, brevity=0.2
    ),
    minimal_margin=0.05,
    held_out=0.1,
)


def config(**changes: Any) -> Pairs:
    return Pairs.model_validate({**CONFIG.model_dump(), **changes})


def draw(
    text: str,
    reward: float,
    *,
    correct: bool | None = None,
    status: str = "scored",
    tokens: int = 10,
    form: float = 1.0,
    variant: str = "direct",
    question: str = "q",
) -> dict[str, Any]:
    """A sampled record, which is correct if its reward is at least 0.6 unless `correct` says otherwise."""
    return {
        "id": question,
        "variant": variant,
        "text": text,
        "tokens": tokens,
        "status": status,
        "reward": reward,
        "correct": reward >= 0.6 if correct is None else correct,
        "quality": {"program_valid": float(status == "scored"), "format_valid": form},
    }


def texts(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in pairs]


# ------------------------------------------------------------------------------ variants


@pytest.mark.parametrize("operands", ["cells", "literal"])
def test_direct_is_the_default_and_the_variants_add_one_line(
    generated_examples: dict[str, list[dict[str, Any]]], operands: str
) -> None:
    for example in generated_examples[operands][:20]:
        direct = TASK.prompt(example)
        assert direct == TASK.prompt(example, "direct") == example["prompts"]["direct"]
        lines = direct.split("\n")
        for variant in VARIANTS[1:]:
            asked = TASK.prompt(example, variant).split("\n")
            (added,) = (Counter(asked) - Counter(lines)).elements()
            assert [line for line in asked if line != added] == lines


def test_the_direct_prompt_of_cells_is_page_question_and_one_word() -> None:
    row = {"input_text": "1 | B 2009\n2 sales | 7", "question": "sales?", "operands": "cells"}
    assert TASK.prompt(row) == "1 | B 2009\n2 sales | 7\nquestion: sales?\nanswer:"
    asked = TASK.prompt(row, "reflective")
    assert asked == (
        "1 | B 2009\n2 sales | 7\ncheck the answer before you write it.\nquestion: sales?\nanswer:"
    )


# ------------------------------------------------------------------------------ pairs


def test_right_over_wrong_comes_before_better_over_worse() -> None:
    draws = [
        draw("short right", 1.0, tokens=10),
        draw("long right", 1.0, tokens=20),
        draw("wrong", 0.2),
    ]
    pairs = make_pairs(draws, config(pairs_per_question=9))
    assert [pair.kind for pair in pairs] == ["correctness", "correctness", "quality"]
    assert texts(pairs)[2] == ("short right", "long right")
    assert [pair.margin for pair in pairs] == pytest.approx([0.8, 0.8, 0.2])
    assert make_pairs(draws, CONFIG) == pairs[:2]


def test_the_limit_is_spent_on_different_mistakes_before_the_same_one_again() -> None:
    draws = [
        draw("right a", 1.0),
        draw("right b", 0.8),
        draw("bad", 0.0, status="scored"),
        draw("near", 0.4),
    ]
    assert texts(make_pairs(draws, CONFIG)) == [("right a", "bad"), ("right b", "near")]


def test_a_mistake_that_can_be_read_is_rejected_before_scrap() -> None:
    draws = [draw("{", 0.0, status="unparseable"), draw("wrong", 0.4), draw("right", 1.0)]
    assert texts(make_pairs(draws, CONFIG)) == [("right", "wrong"), ("right", "{")]
    assert texts(make_pairs(draws, config(pairs_per_question=1))) == [("right", "wrong")]


def test_among_equals_the_largest_margin_comes_first() -> None:
    draws = [draw("near", 0.4), draw("far", 0.0), draw("right", 1.0)]
    assert texts(make_pairs(draws, CONFIG)) == [("right", "far"), ("right", "near")]


def test_identical_completions_count_once() -> None:
    draws = [draw("right", 1.0), draw("wrong", 0.2)] * 3
    assert texts(make_pairs(draws, config(pairs_per_question=9))) == [("right", "wrong")]


def test_the_same_two_texts_under_two_variants_are_one_pair() -> None:
    draws = [
        draw(text, reward, variant=variant)
        for variant in ("direct", "reflective")
        for text, reward in (("right", 1.0), ("wrong", 0.2))
    ]
    (pair,) = make_pairs(draws, config(pairs_per_question=9))
    assert pair.variant == "direct"


def test_chosen_and_rejected_answer_the_same_prompt() -> None:
    assert not make_pairs([draw("right", 1.0), draw("wrong", 0.2, variant="reflective")], CONFIG)


def test_all_wrong_unscorable_or_nothing_gives_no_pairs() -> None:
    assert not make_pairs([draw("a", 0.4), draw("b", 0.0)], CONFIG)
    assert not make_pairs([draw("a", 0.0, status="unscorable"), draw("b", 1.0)], CONFIG)
    assert not make_pairs([], CONFIG)


def test_a_right_answer_that_earns_no_more_than_the_wrong_one_is_no_pair() -> None:
    assert not make_pairs([draw("right", 0.3, correct=True), draw("wrong", 0.3)], CONFIG)


def test_quality_is_the_weighted_mean_with_brevity_between_the_shortest_and_the_longest() -> None:
    right = [
        draw("a", 1.0, tokens=10),
        draw("b", 1.0, tokens=15),
        draw("c", 0.9, tokens=20, form=0.0),
    ]
    assert qualities(right, CONFIG.quality) == pytest.approx([1.0, 0.9, 0.4])
    assert qualities(right[:1], CONFIG.quality) == [1.0]
    doubled = PairQuality(
        program_valid=0.8, format_valid=0.8, steps_used=0.0, no_repetition=0.0, brevity=0.4
    )
    assert qualities(right, doubled) == pytest.approx(qualities(right, CONFIG.quality))


def test_every_part_that_the_score_offers_has_its_weight() -> None:
    parts = {"program_valid": 0.5, "format_valid": 1.0, "steps_used": 1.0, "no_repetition": 0.0}
    right = [{**draw("a", 1.0), "quality": parts}]
    assert qualities(right, CONFIG.quality) == pytest.approx([(0.2 + 0.4 + 0.2 + 0.2) / 1.4])


def test_right_answers_nearer_than_the_minimal_margin_are_no_pair() -> None:
    draws = [draw(str(n), 1.0, tokens=n) for n in (10, 12, 18)]  # brevity 1, 0.75, 0
    found = texts(make_pairs(draws, config(pairs_per_question=9)))
    assert sorted(found) == [("10", "18"), ("12", "18")]  # 0.05 between 10 and 12 is not above
    everything = config(pairs_per_question=9, minimal_margin=0.0)
    assert sorted(texts(make_pairs(draws, everything))) == [
        ("10", "12"),
        ("10", "18"),
        ("12", "18"),
    ]


def test_brevity_does_not_beat_the_reward() -> None:
    misstated = draw("short, states a wrong answer", 0.8, tokens=5)
    assert not make_pairs([misstated, draw("long and right", 1.0, tokens=30)], CONFIG)


def test_weights_that_weigh_nothing_are_an_error() -> None:
    nothing = config(quality=dict.fromkeys(CONFIG.quality.model_dump(), 0) | {"steps_used": 1})
    with pytest.raises(UserError, match=r"^generator\.pairs\.quality: at least one weight"):
        make_pairs([draw("a", 1.0)], nothing)


def test_draws_of_two_questions_are_refused() -> None:
    with pytest.raises(UserError, match="draws of q and others"):
        make_pairs([draw("a", 1.0), draw("b", 0.0, question="r")], CONFIG)


DRAWS = st.lists(
    st.builds(
        draw,
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        tokens=st.integers(1, 9),
        form=st.sampled_from([0.0, 1.0]),
        variant=st.sampled_from(["direct", "reflective"]),
    ),
    max_size=12,
)


@given(DRAWS, st.integers(1, 6))
def test_margins_are_positive_and_no_pair_stands_twice_or_both_ways(
    draws: list[dict[str, Any]], limit: int
) -> None:
    pairs = make_pairs(draws, config(pairs_per_question=limit))
    assert len(pairs) <= limit
    assert all(pair.margin > 0 and pair.chosen != pair.rejected for pair in pairs)
    assert len({frozenset(two) for two in texts(pairs)}) == len(pairs)
    kinds = [pair.kind for pair in pairs]
    assert kinds == sorted(kinds)
    assert make_pairs(draws, config(pairs_per_question=limit)) == pairs


# ------------------------------------------------------------------------------ all questions


def pair(question: str, kind: Any = "correctness", margin: float = 0.8) -> Pair:
    return Pair(question, "direct", kind, "right", "wrong", margin)


def test_a_held_out_question_has_all_its_pairs_held_out() -> None:
    pairs = [pair(f"q{n}", margin=m) for n in range(20) for m in (0.1, 0.2)]
    training, held = split_held_out(pairs, 0.1, seed=0)
    assert len(held) == 4 and len(training) == 36
    assert not {p.id for p in training} & {p.id for p in held}
    assert split_held_out(pairs[::-1], 0.1, seed=0)[1] == held[::-1]
    assert {p.id for p in split_held_out(pairs, 0.1, seed=1)[1]} != {p.id for p in held}


def test_a_small_share_still_holds_one_question_out_and_a_large_one_leaves_one() -> None:
    pairs = [pair("a"), pair("b"), pair("c")]
    assert len(split_held_out(pairs, 0.01, seed=0)[1]) == 1
    assert len(split_held_out(pairs, 0.99, seed=0)[0]) == 1


def test_the_pairs_of_a_single_question_are_for_training_and_none_may_be_there() -> None:
    pairs = [pair("a"), pair("a", margin=0.2)]
    assert split_held_out(pairs, 0.9, seed=0) == (pairs, [])
    assert split_held_out([], 0.1, seed=0) == ([], [])


def test_statistics_count_by_hand() -> None:
    samples = [
        draw("right", 1.0, question="mixed"),
        draw("wrong", 0.2, question="mixed"),
        draw("{", 0.0, status="unparseable", question="mixed", variant="reflective"),
        draw("right", 1.0, question="mixed", variant="reflective"),
        draw("right", 1.0, question="easy"),
        draw("right", 1.0, question="easy"),
        draw("wrong", 0.2, question="hard"),
        draw("?", 0.0, status="unscorable", question="broken"),
    ]
    pairs = make_pairs(samples[:4], CONFIG)
    assert statistics(pairs, samples) == {
        "questions": 4,
        "mixed": 1,
        "all_right": 1,
        "all_wrong": 1,
        "unscorable": 1,
        "questions_with_pairs": 1,
        "pairs": 2,
        "pairs_correctness": 2,
        "pairs_quality": 0,
        "unparseable": 0.125,
        "repeated": 0.125,
        "rejected_unparseable": 0.5,
        "success_direct": 0.5,
        "success_reflective": 0.5,
        "margin_correctness": pytest.approx(0.9),
    }
    assert "margin_correctness" not in statistics([], samples)
    assert set(statistics([], []).values()) == {0}


@pytest.mark.parametrize(
    "answers",
    [
        [("a", 0.2, False), ("b", 0.3, False)],  # all wrong
        [("right", 1.0, True), ("right", 1.0, True)],  # the same right answer twice
        [("right", 0.2, True), ("a", 0.2, False)],  # a right answer that is worth no more
        [("right", 1.0, True)],  # a single sample
    ],
)
def test_samples_without_a_better_one_give_no_pair(answers: list[tuple[str, float, bool]]) -> None:
    draws = [draw(text, reward, correct=right) for text, reward, right in answers]
    assert make_pairs(draws, CONFIG) == []


def test_a_pair_is_a_json_line() -> None:
    assert Pair(**json.loads(json.dumps(asdict(pair("a"))))) == pair("a")


def test_margins_are_drawn_the_same_twice_and_without_pairs_too(tmp_path: Path) -> None:
    rows = [asdict(pair("a")), asdict(pair("b", "quality", 0.2)), asdict(pair("c", margin=1.0))]
    for name in ("one", "two"):
        plot_margins(rows, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    plot_margins([], tmp_path / "none")
    assert (tmp_path / "none").read_bytes() != (tmp_path / "one").read_bytes()

"""Blind baselines: equal to hand counts on small pools, and of little use on real ones."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare
from workspace import ROOT, rewarded_pools

from posttrain.core.params import load_params
from posttrain.pools.blind import blind_baselines, blind_scores, fit_blind_model
from posttrain.pools.rewards import summarise_pools
from posttrain.tasks import SPLITS, get_task
from posttrain.tasks.rendering import rendered

WORDS = [f"word{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]

Pool = Sequence[Mapping[str, Any]]


def made(
    text: str, correct: bool = False, answer: str | None = "1", consistent: bool = True
) -> dict[str, Any]:
    return {"text": text, "answer": answer, "consistent": consistent, "correct": correct}


def rules_of(train: Sequence[Pool], test: Sequence[Pool]) -> dict[str, float]:
    return blind_baselines(train, {"test": test})["test"]


def test_each_rule_by_hand() -> None:
    pool = [
        made("aaaa", correct=True, answer="5"),
        made("bb", answer="7", consistent=False),
        made("cccccc", answer="5", consistent=False),
        made("ddd", answer=None, consistent=False),
    ]
    rules = rules_of([pool], [pool])
    assert rules["shortest"] == 0.0 and rules["longest"] == 0.0
    assert rules["majority_answer"] == 0.5  # two candidates say 5, one of them is right
    assert rules["consistent"] == 1.0
    assert rules["fixed_slot"] == 1.0
    assert rules["random"] == 0.25


def test_a_rule_that_likes_all_equally_gets_the_share_of_right_ones() -> None:
    pool = [made("a", correct=True), made("b"), made("c"), made("d", correct=True)]
    rules = rules_of([pool], [pool])
    assert rules["shortest"] == rules["majority_answer"] == rules["consistent"] == 0.5


def test_the_learned_rule_finds_what_gives_the_right_one_away() -> None:
    rng = random.Random(0)

    def pool() -> Pool:
        right = rng.randrange(4)
        words = [f"add {rng.randrange(100)}" for _ in range(4)]
        return [
            made(word + (" tell" if slot == right else " same"), correct=slot == right)
            for slot, word in enumerate(words)
        ]

    train, test = [pool() for _ in range(80)], [pool() for _ in range(40)]
    assert rules_of(train, test)["learned"] == 1.0
    assert blind_scores(test[0], fit_blind_model(train)).shape == (4,)


def test_the_learned_rule_finds_nothing_where_nothing_is() -> None:
    rng = random.Random(0)

    def pool() -> Pool:
        right = rng.randrange(4)
        return [made(f"add {rng.randrange(1000)}", correct=slot == right) for slot in range(4)]

    train, test = [pool() for _ in range(200)], [pool() for _ in range(400)]
    assert rules_of(train, test)["learned"] == pytest.approx(0.25, abs=0.08)


def test_the_learned_rule_is_the_same_however_few_features_are_in_memory() -> None:
    """Chunks of 7 pools of different sizes, the last chunk shorter, from a single-pass iterator."""
    rng = random.Random(0)
    pools = [
        [made(f"add {rng.randrange(9)} {rng.choice('abc')}", slot == 0) for slot in range(size)]
        for size in rng.choices((1, 3, 8), k=60)
    ]
    whole = fit_blind_model(pools, chunk=1000)
    assert np.abs(whole).max() > 0.1
    assert fit_blind_model(iter(pools), chunk=7) == pytest.approx(whole, abs=1e-9)


def test_features_of_more_pools_take_no_more_memory() -> None:
    """By the peak allocation of Python and numpy, which is a third higher if all pools are one chunk."""

    def peak(count: int) -> int:
        pools = (
            [made(f"{n} {' '.join(WORDS)}", n % 4 == 0) for n in range(8)] for _ in range(count)
        )
        tracemalloc.start()
        fit_blind_model(pools, iterations=2, chunk=20)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(20)  # what stays for good
    assert peak(400) < 1.1 * peak(40)


# ------------------------------------------------------------------------------ real FinQA


@pytest.fixture(scope="module")
def finqa_pools(finqa_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Pool]]:
    """All pools of real FinQA with the project's own params, rewarded."""
    task, params = get_task("finqa"), load_params(ROOT / "params.yaml")
    directory = tmp_path_factory.mktemp("finqa")
    task.audit(finqa_dir, directory / "audit")
    examples = {
        split: [*rendered(task, task.examples(params, split, directory / "audit"), (), 0.01)]
        for split in SPLITS
    }
    assert params.pools.count == 8
    return rewarded_pools(task, params, examples)


def test_no_trivial_rule_wins_on_real_pools(finqa_pools: dict[str, list[Pool]]) -> None:
    held_out = {split: finqa_pools[split] for split in ("val", "test")}
    for split, rules in blind_baselines(finqa_pools["train"], held_out).items():
        assert max(rules.values()) < 0.35, (split, rules)


def test_real_pools_have_eight_distinct_candidates_and_gold_anywhere(
    finqa_pools: dict[str, list[Pool]],
) -> None:
    for split in SPLITS:
        for pool in finqa_pools[split]:
            assert len({candidate["text"] for candidate in pool}) == 8
        summary = summarise_pools(finqa_pools[split])
        assert summary["kinds"]["gold"] == summary["pools"]
        assert chisquare(list(summary["gold_slots"].values())).pvalue > 1e-3
        assert summary["reward"]["gold"] == 1.0

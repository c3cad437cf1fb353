"""Claims about the sentences derived from a comparison, on invented numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from posttrain.core.errors import UserError
from posttrain.measures.named import Measure
from posttrain.report.compare import Comparison, Estimate, Result
from posttrain.report.critic import critic_sentences
from posttrain.report.curves import (
    Panel,
    finding,
    mean_curve,
    plot_curves,
    read_curve,
    read_panels,
    smooth,
)
from posttrain.report.findings import findings, headline, joined, label, percent, points

Change = tuple[float, float]  # value and p


def changed(
    value: float, p: float | None, seeds: Sequence[float] = (), of_method: bool = False
) -> Estimate:
    ends = (value - 0.01, value + 0.01)
    return Estimate(value, ends, ends, tuple(map(Estimate, seeds or [value])), p, of_method)


MEASURES = (
    Measure("accuracy", "rate", "correct", change="the greedy answer"),
    Measure("fitted_accuracy", "mean", "-", change="a sample at the fitted temperature"),
    Measure("sample_accuracy", "mean", "-", change="a sample at temperature 1"),
)


def comparison(
    greedy: Mapping[str, Change],
    sample: Mapping[str, Change] | None = None,
    *,
    fitted: Mapping[str, Change] | None = None,
    plus: Mapping[str, Change] | None = None,
    plus_fitted: Mapping[str, Change] | None = None,
    plus_sample: Mapping[str, Change] | None = None,
    sft: float = 0.6,
    seeds: Sequence[int] = (0,),
    of_seeds: Mapping[str, Sequence[float]] | None = None,
    blind: Mapping[str, float] | None = None,
) -> Comparison:
    """A comparison of SFT at accuracy `sft` and of policies with these changes from it, and `plus` from SFT+.

    Without `fitted` there are two measures.
    """
    given = {
        "sft": (greedy, fitted or {}, sample or {}),
        "sft_plus": (plus or {}, plus_fitted or {}, plus_sample or {}),
    }
    results = {"sft": Result({"accuracy": Estimate(sft, (sft - 0.02, sft + 0.02))}, {})}
    for policy, (value, _) in greedy.items():
        changes = {}
        for reference, of in given.items():
            if policy not in of[0]:
                continue
            changes[reference] = {
                measure.name: changed(
                    *moved.get(policy, (0.0, 1.0)),
                    (of_seeds or {}).get(policy, ()) if measure is MEASURES[0] else (),
                    len(seeds) > 2,
                )
                for measure, moved in zip(MEASURES, of, strict=True)
            }
        accuracy = Estimate(sft + value, (sft + value - 0.02, sft + value + 0.02))
        results[policy] = Result({"accuracy": accuracy}, changes)
    measures = MEASURES[::2] if fitted is None else MEASURES
    return Comparison("generator", seeds, 500, results, {}, blind or {}, measures)


def plain(sentences: Sequence[str]) -> list[str]:
    return [sentence.replace("\u00a0", " ").strip("*") for sentence in sentences]


# ------------------------------------------------------------------------------ the best policy


@pytest.mark.parametrize(
    ("greedy", "said"),
    [
        (
            {"ppo": (0.024, 0.01), "grpo": (0.01, 0.5)},
            "PPO has the highest accuracy on 500 test questions: 62.4 %, SFT 60.0 %.",
        ),
        (
            {"ppo": (0.024, 0.2)},
            "PPO has the highest accuracy on 500 test questions: 62.4 %, SFT 60.0 %; "
            "the difference from SFT is within noise.",
        ),
        (
            {"ppo": (0.02, 0.01), "exact": (0.02, 0.01)},
            "PPO and exact have the highest accuracy on 500 test questions: 62.0 %, SFT 60.0 %.",
        ),
        (
            {"ppo": (-0.01, 0.5), "dpo": (-0.05, 0.01)},
            "No RL method has a higher accuracy on 500 test questions than SFT: 60.0 %; PPO has 59.0 %.",
        ),
        (
            {"ppo": (0.0, 1.0), "dpo": (-0.05, 0.01)},
            "No RL method has a higher accuracy on 500 test questions than SFT: 60.0 %, "
            "which SFT and PPO share; DPO has 55.0 %.",
        ),
        (
            {"ppo": (0.0, 1.0)},
            "SFT and PPO have the same accuracy on 500 test questions: 60.0 %.",
        ),
        ({}, "SFT has an accuracy of 60.0 % on 500 test questions."),
        (
            {"sft_plus": (0.05, 0.001), "ppo": (0.02, 0.01)},
            "No RL method has a higher accuracy on 500 test questions than SFT+: 65.0 %; PPO has 62.0 %.",
        ),
    ],
)
def test_the_best_policy_is_named_with_its_distance_from_sft(
    greedy: Mapping[str, Change], said: str
) -> None:
    found = comparison(greedy)
    opening, conclusion = findings(found)[0].replace("\u00a0", " "), headline(found)
    if not found.methods:
        assert opening == f"**{said}**"
    else:
        assert opening == f"**For these trained models alone: {conclusion}.** {said}".replace(
            "\u00a0", " "
        )


def test_no_policy_is_praised_for_no_right_answer() -> None:
    found = comparison({"ppo": (0.0, 1.0), "dpo": (0.0, 1.0)}, sft=0.0)
    assert plain(findings(found))[0].endswith(
        "No policy has a right greedy answer on 500 test questions."
    )


@pytest.mark.parametrize(
    ("greedy", "sample", "said"),
    [
        (
            (-0.07, 0.001),
            (0.03, 0.001),
            "gains 7.0 points [+6.0, +8.0] in the greedy answer and "
            "loses 3.0 points [+2.0, +4.0] in a sample at temperature 1.",
        ),
        (
            (-0.01, 0.3),
            (-0.03, 0.001),
            "stays within noise in the greedy answer (+1.0 points) and "
            "gains 3.0 points [+2.0, +4.0] in a sample at temperature 1.",
        ),
        (
            (-0.07, 0.001),
            (-0.03, 0.001),
            "gains 7.0 points [+6.0, +8.0] in the greedy answer and 3.0 points [+2.0, +4.0] in a sample at temperature 1.",
        ),
    ],
)
def test_what_sft_itself_gains_is_said(greedy: Change, sample: Change, said: str) -> None:
    found = comparison({"base": greedy}, {"base": sample})
    assert plain(findings(found))[1] == f"Against the base model SFT {said}"


# ------------------------------------------------------------------------------ beyond noise


def test_changes_beyond_noise_are_told_apart_from_the_rest() -> None:
    found = comparison(
        {"ppo": (0.03, 0.01), "grpo": (0.01, 0.3), "dpo": (-0.02, 0.04)},
        {"ppo": (0.0, 1.0), "grpo": (0.0, 1.0), "dpo": (0.01, 0.9)},
    )
    _, greedy, sample, seeds = plain(findings(found))
    assert greedy == (
        "In the greedy answer the change against SFT is beyond noise for PPO +3.0 [+2.0, +4.0], "
        "DPO −2.0 [−3.0, −1.0] points, not for GRPO +1.0."
    )
    assert sample == (
        "In a sample at temperature 1 no method's change against SFT is beyond noise: DPO +1.0, PPO 0.0, GRPO 0.0 points."
    )
    assert seeds.startswith("One seed on one machine: this describes one training of each method, ")
    assert "nothing can be said of the methods" in seeds
    assert "dvc exp run -S 'seeds=[0,1,2]'" in seeds


def test_when_every_change_is_beyond_noise_it_says_so() -> None:
    found = comparison({"ppo": (0.03, 0.01), "grpo": (0.02, 0.01)})
    assert plain(findings(found))[1] == (
        "In the greedy answer every method's change against SFT is beyond noise: "
        "PPO +3.0 [+2.0, +4.0], GRPO +2.0 [+1.0, +3.0] points."
    )


def of_temperature(found: Comparison) -> list[str]:
    return [
        said
        for said in plain(findings(found))
        if said.startswith("Against SFT ") and "gain" in said
    ]


def test_a_gain_at_temperature_1_alone_is_a_matter_of_temperature() -> None:
    methods = ("ppo", "grpo", "dpo")
    found = comparison(
        dict.fromkeys(methods, (0.0, 1.0)),
        dict.fromkeys(methods, (0.05, 0.01)),
        fitted={"ppo": (0.02, 0.01), "grpo": (0.04, 0.06), "dpo": (-0.03, 0.01)},
    )
    assert of_temperature(found) == [
        "Against SFT GRPO and DPO gain beyond noise in a sample at temperature 1 and not at the fitted temperature: "
        "what is shown is a matter of temperature.",
        "Against SFT PPO gains beyond noise in a sample at the fitted temperature and not in the greedy answer: "
        "one temperature for all questions does not explain that, and no better greedy answer is shown.",
    ]


@pytest.mark.parametrize(
    ("sample", "fitted"),
    [
        ((0.05, 0.2), (0.0, 1.0)),  # within noise
        ((-0.05, 0.01), (0.0, 1.0)),  # a loss
        ((0.05, 0.01), (0.05, 0.01)),  # at either temperature, and in the greedy answer
    ],
)
def test_nothing_is_said_of_temperature_where_no_gain_hangs_on_it(
    sample: Change, fitted: Change
) -> None:
    found = comparison({"ppo": (0.03, 0.01)}, {"ppo": sample}, fitted={"ppo": fitted})
    assert not any("matter of temperature" in said for said in findings(found))
    assert not any("does not explain" in said for said in findings(found))


def test_gains_that_hang_on_temperature_are_told_by_reference() -> None:
    methods = ("ppo", "grpo")
    same = comparison(
        {"sft_plus": (0.0, 1.0), **dict.fromkeys(methods, (0.0, 1.0))},
        dict.fromkeys(methods, (0.05, 0.01)),
        fitted={},
        plus=dict.fromkeys(methods, (0.0, 1.0)),
        plus_sample=dict.fromkeys(methods, (0.03, 0.01)),
    )
    assert any(said.startswith("Against SFT+ and SFT PPO and GRPO gain") for said in findings(same))
    other = replace_changes(same, "grpo", "sft_plus")
    told = [said for said in findings(other) if "matter of temperature" in said]
    assert [said.split(" gain")[0] for said in told] == [
        "Against SFT+ PPO",
        "Against SFT PPO and GRPO",
    ]


def replace_changes(found: Comparison, policy: str, reference: str) -> Comparison:
    """The comparison, in which a policy does not differ from a reference."""
    none = {measure.name: changed(0.0, 1.0) for measure in MEASURES}
    changes = {**found.results[policy].changes, reference: none}
    results = {**found.results, policy: replace(found.results[policy], changes=changes)}
    return replace(found, results=results)


# ------------------------------------------------------------------------------ against SFT+


@pytest.mark.parametrize(
    ("change", "seeds", "said"),
    [
        (
            (0.05, 0.01),
            (0, 1, 2),
            "beats SFT by 5.0 points [+4.0, +6.0] in the greedy answer: SFT was not at its end, and a gain against it "
            "alone may come from training for longer.",
        ),
        (
            (0.05, 0.01),
            (0,),
            "beats SFT by 5.0 points [+4.0, +6.0] in the greedy answer: this SFT was not at its end, and a gain against it "
            "alone may come from training for longer.",
        ),
        (
            (0.05, 0.06),
            (0, 1, 2),
            "is not shown to differ from SFT in the greedy answer: +5.0 points.",
        ),
        ((-0.05, 0.01), (0,), "falls 5.0 points [+4.0, +6.0] behind SFT in the greedy answer."),
    ],
)
def test_what_more_sft_adds_is_said(change: Change, seeds: Sequence[int], said: str) -> None:
    found = comparison(
        {"sft_plus": change, "ppo": (0.0, 1.0)}, plus={"ppo": (0.0, 1.0)}, seeds=seeds
    )
    control = "SFT+, which trains on with SFT where the methods train with RL, "
    assert plain(findings(found))[1] == control + said


@pytest.mark.parametrize(
    ("greedy", "plus", "said"),
    [
        (
            {"ppo": (0.02, 0.2), "grpo": (0.01, 0.3)},
            {"ppo": (-0.01, 0.3), "grpo": (-0.02, 0.3)},
            "no RL method is shown to beat SFT+ or SFT",
        ),
        (
            {"ppo": (0.05, 0.01), "grpo": (0.01, 0.3)},
            {"ppo": (0.02, 0.3), "grpo": (-0.02, 0.3)},
            "no RL method is shown to beat SFT+; PPO beats SFT by 5.0 points",
        ),
        (
            {"ppo": (0.08, 0.01), "grpo": (0.06, 0.01), "dpo": (0.01, 0.5)},
            {"ppo": (0.04, 0.01), "grpo": (0.02, 0.01), "dpo": (-0.03, 0.01)},
            "PPO and GRPO beat SFT+ by 2.0 to 4.0 points, and DPO falls 3.0 points behind it; "
            "PPO and GRPO beat SFT by 6.0 to 8.0 points",
        ),
        (
            {"ppo": (0.03, 0.01), "grpo": (0.03, 0.01)},
            {"ppo": (-0.03, 0.01), "grpo": (-0.02, 0.4)},
            "no RL method is shown to beat SFT+, and PPO falls 3.0 points behind it; "
            "every RL method beats SFT by 3.0 points",
        ),
    ],
)
def test_the_conclusion_is_first_of_what_rl_adds_to_sft_plus(
    greedy: Mapping[str, Change], plus: Mapping[str, Change], said: str
) -> None:
    found = comparison(
        {"sft_plus": (0.02, 0.3), **greedy},
        dict.fromkeys(greedy, (0.2, 0.001)),  # a sample has no say
        plus=plus,
        seeds=(0, 1, 2),
    )
    assert headline(found).replace("\u00a0", " ") == f"in the greedy answer {said}"
    assert findings(found)[0].startswith("**In the greedy answer ")


def test_a_change_is_told_against_both_references_in_one_sentence() -> None:
    found = comparison(
        {"sft_plus": (0.0, 1.0), "ppo": (0.05, 0.01), "dpo": (0.01, 0.5)},
        plus={"ppo": (0.02, 0.3), "dpo": (-0.03, 0.01)},
    )
    assert plain(findings(found))[2] == (
        "In the greedy answer the change against SFT+ is beyond noise for DPO −3.0 [−4.0, −2.0] points, not for PPO +2.0; "
        "the change against SFT is beyond noise for PPO +5.0 [+4.0, +6.0] points, not for DPO +1.0."
    )


@pytest.mark.parametrize(
    ("from_sft", "from_plus", "said"),
    [
        ((0.03, 0.01), (0.02, 0.01), "SFT 60.0 %, SFT+ 61.0 %."),
        (
            (0.03, 0.01),
            (0.02, 0.2),
            "SFT 60.0 %, SFT+ 61.0 %; the difference from SFT+ is within noise.",
        ),
        (
            (0.03, 0.1),
            (0.02, 0.2),
            "SFT 60.0 %, SFT+ 61.0 %; the difference from SFT+ and SFT is within noise.",
        ),
    ],
)
def test_the_highest_accuracy_is_told_with_what_it_is_within_noise_of(
    from_sft: Change, from_plus: Change, said: str
) -> None:
    found = comparison({"sft_plus": (0.01, 0.5), "ppo": from_sft}, plus={"ppo": from_plus})
    highest = "PPO has the highest accuracy on 500 test questions: 63.0 %, "
    assert plain(findings(found))[0].endswith(highest + said)


# ------------------------------------------------------------------------------ by seeds


def test_with_three_seeds_the_sentences_are_of_the_methods() -> None:
    """The p-value counts the trainings, so seeds need not all agree."""
    found = comparison(
        {"ppo": (0.03, 0.01), "grpo": (0.02, 0.06)},
        seeds=(0, 1, 2),
        of_seeds={"ppo": (0.05, 0.05, -0.01), "grpo": (0.02, 0.02, 0.02)},
    )
    first, greedy, _, seeds = plain(findings(found))
    assert first.startswith("In the greedy answer PPO beats SFT by 3.0 points.")
    assert "beyond noise for PPO +3.0 [+2.0, +4.0] points, not for GRPO +2.0." in greedy
    assert seeds.startswith("3 seeds: intervals and p-values of changes count other trainings")


def test_two_seeds_say_nothing_of_a_method() -> None:
    found = comparison(
        {"ppo": (0.03, 0.01), "grpo": (0.02, 0.01)},
        seeds=(0, 1),
        of_seeds={"ppo": (0.03, 0.03), "grpo": (0.07, -0.03)},
    )
    first, greedy, _, seeds = plain(findings(found))
    assert first.startswith(
        "For these trained models alone: in the greedy answer PPO beats SFT by 3.0 points."
    )
    assert "beyond noise for PPO +3.0 [+2.0, +4.0] points, not for GRPO +2.0." in greedy
    assert seeds.startswith(
        "2 seeds on one machine: this describes 2 trainings of each method, and nothing can be said of the methods."
    )


def test_the_best_blind_baseline_is_named() -> None:
    found = comparison({"ppo": (0.0, 1.0)}, blind={"longest": 0.1, "most_typical": 0.25})
    assert (
        "The best blind baseline (most typical), which reads the candidates and not the question, is right on 25.0 %."
        in plain(findings(replace(found, family="selector")))
    )
    assert (
        "The best blind baseline (most typical), which learns nothing, is right on 25.0 %."
        in plain(findings(found))
    )


# ------------------------------------------------------------------------------ the headline


@pytest.mark.parametrize(
    ("greedy", "said"),
    [
        (
            {"ppo": (0.02, 0.2), "grpo": (0.01, 0.3)},
            "in the greedy answer no RL method is shown to beat SFT",
        ),
        (
            {"ppo": (0.024, 0.01), "grpo": (0.0, 1.0)},
            "in the greedy answer PPO beats SFT by 2.4 points",
        ),
        (
            {"ppo": (0.03, 0.01), "grpo": (0.03, 0.01), "dpo": (-0.02, 0.01)},
            "in the greedy answer PPO and GRPO beat SFT by 3.0 points, and DPO falls 2.0 points behind it",
        ),
        (
            {"ppo": (-0.03, 0.01), "grpo": (-0.04, 0.01)},
            "in the greedy answer no RL method is shown to beat SFT, and every RL method falls 3.0 to 4.0 points behind it",
        ),
        ({}, "SFT answers 60.0 % right"),
    ],
)
def test_without_sft_plus_the_headline_is_against_sft(
    greedy: Mapping[str, Change], said: str
) -> None:
    assert headline(comparison(greedy)).replace("\u00a0", " ") == said


def test_numbers_and_names_read_well() -> None:
    assert [points(value) for value in (0.024, -0.012, 0.0004, -0.0004)] == [
        "+2.4",
        "−1.2",
        "0.0",
        "0.0",
    ]
    assert percent(0.9144) == "91.4\u00a0%"
    assert [label(name) for name in ("ppo", "sft_plus", "base", "exact")] == [
        "PPO", "SFT+", "base", "exact",
    ]  # fmt: skip
    assert [joined(list(names)) for names in ("", "a", "ab", "abc")] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip


# ------------------------------------------------------------------------------ learning curves


def curve(values: Sequence[float], first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(first, first + len(values), dtype=float), np.array(values, dtype=float)


def test_curves_of_all_methods_and_seeds_are_read(tmp_path: Path) -> None:
    for method, seeds in (("ppo", (0, 1)), ("dpo", (0, 1)), ("grpo", (0,))):
        for seed in seeds:
            path = tmp_path / method / str(seed) / "val/reward.tsv"
            path.parent.mkdir(parents=True)
            path.write_text(f"step\treward\n0\t0.5\n10\t0.{6 + seed}\n")
    kl = tmp_path / "ppo/0/train/kl.tsv"
    kl.parent.mkdir(parents=True)
    kl.write_text("step\tkl\n1\t0.1\n")
    (panel,) = read_panels(tmp_path, ["ppo", "dpo", "grpo"], [0, 1])
    assert set(panel.curves) == {"ppo", "dpo"}  # grpo lacks a seed, and a KL all but one
    assert mean_curve(panel.curves["ppo"])[1].tolist() == pytest.approx([0.5, 0.65])
    kl.write_text("step\tkl\nsoon\n")
    with pytest.raises(UserError, match=r"kl\.tsv: not a curve of step and value"):
        read_curve(kl)


def test_a_critic_that_explains_nothing_is_told(tmp_path: Path) -> None:
    for seed, values in ((0, (0.0, 0.3)), (1, (0.0, 0.5))):
        path = tmp_path / "ppo" / str(seed) / "train/explained_variance.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("step\tvalue\n" + "".join(f"{i}\t{v}\n" for i, v in enumerate(values)))
    explains = "PPO's critic explains 20.0 % of the variance of returns, on average over the steps"
    assert critic_sentences(tmp_path, [0, 1]) == [f"{explains} and 2 seeds."]
    assert critic_sentences(tmp_path, [2]) == []
    path.write_text("step\tvalue\n1\t-0.1\n")
    (told,) = critic_sentences(tmp_path, [1])
    assert "explains -10.0 %" in told and told.endswith("REINFORCE with a whitened advantage.")


def test_the_mean_is_over_the_steps_that_all_seeds_have() -> None:
    steps, values = mean_curve([curve([1, 2, 3]), curve([3, 4], first=1)])
    assert (steps.tolist(), values.tolist()) == ([1, 2], [2.5, 3.5])


def test_long_curves_are_smoothed_and_short_ones_are_not() -> None:
    short, wave = np.arange(10.0), np.tile([0.0, 1.0], 60)
    assert smooth(short).tolist() == short.tolist()
    assert np.ptp(smooth(wave)[10:-10]) < 0.2
    assert smooth(np.ones(100)).tolist() == [1.0] * 100


def test_the_title_says_how_far_training_moved_the_validation() -> None:
    def panel(**ends: float) -> list[Panel]:
        curves = {name: [curve([0.5, end])] for name, end in ends.items()}
        return [Panel("val/reward", "-", curves, 100.0)]

    assert finding(panel(ppo=0.52, dpo=0.49)) == (
        "training moves the reward on validation by −1.0 (DPO) to +2.0 points (PPO)"
    )
    assert finding(panel(ppo=0.52)) == "PPO moves the reward on validation by +2.0 points"
    assert finding([]) == "no learning curves"
    assert finding([Panel("train/kl", "-", {}, 1.0)]) == "no validation was recorded"


def test_the_picture_of_curves_depends_on_the_data_alone(tmp_path: Path) -> None:
    panels = [
        Panel("val/reward", "reward", {"ppo": [curve([0.5, 0.6]), curve([0.4, 0.6])]}, 100.0),
        Panel("train/kl", "kl", {"ppo": [curve(np.linspace(0, 1, 60).tolist())] * 2}),
    ]
    for name in ("a.png", "b.png"):
        plot_curves("selector", panels, 2, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    plot_curves("selector", [], 1, tmp_path / "none.png")
    png = (tmp_path / "none.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[20:24], "big") < 120  # a line of text, no empty axes


def test_a_method_without_a_curve_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("posttrain.report.curves.titles", lambda *given: told.append(given[-1]))
    val = Panel("val/reward", "-", {"ppo": [curve([0.5, 0.6])], "dpo": [curve([0.5, 0.6])]})
    kl = Panel("train/kl", "-", {"ppo": [curve([0.0, 0.1])]})
    for panels in ([val, kl], [val]):
        plot_curves("generator", panels, 1, tmp_path / "a.png")
    assert told[0] == f"{told[1]} DPO recorded no KL."

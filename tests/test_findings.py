"""Claims about the sentences derived from a comparison, on invented numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from posttrain.core.errors import UserError
from posttrain.report.compare import Comparison, Estimate, Result
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


def comparison(
    greedy: Mapping[str, Change],
    sample: Mapping[str, Change] | None = None,
    *,
    sft: float = 0.6,
    seeds: Sequence[int] = (0,),
    of_seeds: Mapping[str, Sequence[float]] | None = None,
    blind: Mapping[str, float] | None = None,
) -> Comparison:
    """A comparison of SFT at accuracy `sft` and of policies with these changes from it."""
    results = {"sft": Result({"accuracy": Estimate(sft, (sft - 0.02, sft + 0.02))}, {})}
    for policy, (value, p) in greedy.items():
        moved = (sample or {}).get(policy, (0.0, 1.0))
        results[policy] = Result(
            {"accuracy": Estimate(sft + value, (sft + value - 0.02, sft + value + 0.02))},
            {
                "accuracy": changed(value, p, (of_seeds or {}).get(policy, ()), len(seeds) > 2),
                "sample_accuracy": changed(*moved, of_method=len(seeds) > 2),
            },
        )
    return Comparison("generator", seeds, 500, results, {}, blind or {})


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
            "the difference is within noise.",
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
            {"sft+": (0.05, 0.001), "ppo": (0.02, 0.01)},
            "SFT+ has the highest accuracy on 500 test questions: 65.0 %, SFT 60.0 %.",
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


@pytest.mark.parametrize(
    ("greedy", "sample", "said"),
    [
        (
            (-0.07, 0.001),
            (0.03, 0.001),
            "gains 7.0 points [+6.0, +8.0] in the greedy answer and loses 3.0 points [+2.0, +4.0] in a sample.",
        ),
        (
            (-0.01, 0.3),
            (-0.03, 0.001),
            "stays within noise in the greedy answer (+1.0 points) and "
            "gains 3.0 points [+2.0, +4.0] in a sample.",
        ),
        (
            (-0.07, 0.001),
            (-0.03, 0.001),
            "gains 7.0 points [+6.0, +8.0] in the greedy answer and 3.0 points [+2.0, +4.0] in a sample.",
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
        "In a sample no method's change against SFT is beyond noise: DPO +1.0, PPO 0.0, GRPO 0.0 points."
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


def test_a_gain_in_a_sample_alone_is_called_what_it_may_be() -> None:
    surer = comparison(
        {"ppo": (0.03, 0.01), "grpo": (0.0, 1.0), "dpo": (-0.03, 0.01)},
        dict.fromkeys(("ppo", "grpo", "dpo"), (0.05, 0.01)),
    )
    assert any(
        said.startswith("GRPO and DPO gain in a sample and not in the greedy answer. A policy")
        for said in plain(findings(surer))
    )
    fine = comparison({"ppo": (0.03, 0.01)}, {"ppo": (0.05, 0.01)})
    assert not any("temperature" in said for said in findings(fine))


def test_with_three_seeds_the_sentences_are_of_the_methods() -> None:
    """The p-value counts the trainings, so seeds need not all agree."""
    found = comparison(
        {"ppo": (0.03, 0.01), "grpo": (0.02, 0.06)},
        seeds=(0, 1, 2),
        of_seeds={"ppo": (0.05, 0.05, -0.01), "grpo": (0.02, 0.02, 0.02)},
    )
    first, greedy, _, seeds = plain(findings(found))
    assert first.startswith("In the greedy answer PPO gains 3.0 points;")
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
        "For these trained models alone: in the greedy answer PPO gains 3.0 points;"
    )
    assert "beyond noise for PPO +3.0 [+2.0, +4.0] points, not for GRPO +2.0." in greedy
    assert seeds.startswith(
        "2 seeds on one machine: this describes 2 trainings of each method, and nothing can be said of the methods."
    )


def test_the_best_blind_baseline_is_named() -> None:
    found = comparison({"ppo": (0.0, 1.0)}, blind={"longest": 0.1, "most_typical": 0.25})
    assert (
        "The best blind baseline (most typical), which reads the candidates and not the question, is right on 25.0 %."
        in plain(findings(found))
    )


# ------------------------------------------------------------------------------ the headline


@pytest.mark.parametrize(
    ("greedy", "sample", "said"),
    [
        (
            {"ppo": (0.02, 0.2), "grpo": (0.01, 0.3)},
            {},
            "in the greedy answer and a sample no method differs from SFT beyond noise",
        ),
        (
            {"ppo": (0.024, 0.01), "grpo": (0.0, 1.0)},
            {},
            "in the greedy answer PPO gains 2.4 points; "
            "in a sample no method differs from SFT beyond noise",
        ),
        (
            {"ppo": (0.0, 1.0), "grpo": (0.0, 1.0)},
            {"ppo": (0.05, 0.01), "grpo": (0.04, 0.01)},
            "in a sample every method gains 4.0 to 5.0 points; "
            "in the greedy answer no method differs from SFT beyond noise",
        ),
        (
            {"ppo": (0.03, 0.01), "grpo": (0.03, 0.01), "dpo": (-0.02, 0.01)},
            {"ppo": (0.05, 0.01)},
            "in the greedy answer PPO and GRPO gain 3.0 points and DPO loses 2.0 points; "
            "in a sample PPO gains 5.0 points",
        ),
        ({}, {}, "SFT answers 60.0 % right"),
    ],
)
def test_the_headline_holds_what_is_beyond_noise(
    greedy: Mapping[str, Change], sample: Mapping[str, Change], said: str
) -> None:
    assert headline(comparison(greedy, sample)).replace("\u00a0", " ") == said


def test_numbers_and_names_read_well() -> None:
    assert [points(value) for value in (0.024, -0.012, 0.0004, -0.0004)] == [
        "+2.4",
        "−1.2",
        "0.0",
        "0.0",
    ]
    assert percent(0.9144) == "91.4\u00a0%"
    assert [label(name) for name in ("ppo", "sft+", "base", "exact")] == [
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

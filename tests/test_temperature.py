"""Claims about fitted temperatures: by hand, and that a policy gains nothing by growing surer alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pretrain.model import train_tokenizer
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from toys import PARAMS, tiny_config
from transformers import AutoModelForCausalLM

from posttrain.core.errors import DivergedError, UserError
from posttrain.generator.batches import collate, forward
from posttrain.generator.fitted import fit_temperature, gold_rows, slopes
from posttrain.measures.answers import curve as answers_curve
from posttrain.measures.choices import curve, predict
from posttrain.measures.temperature import GRID, LEAST, MOST, described, fit_choice, fit_slopes
from posttrain.models.tokens import tokenize_answers, tokenize_prompts
from posttrain.report.compare import Run, compare_runs
from posttrain.report.temperatures import (
    plot_temperatures,
    read_temperatures,
    temperature_table,
)
from posttrain.rollouts.episode import Row
from posttrain.rollouts.groups import best
from posttrain.rollouts.sampling import sample

# ------------------------------------------------------------------------------ the selector


def random_choices(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Logits that are often right, the best candidates, and the pools."""
    rng = np.random.default_rng(seed)
    rewards = rng.choice([0.0, 0.3, 1.0], (count, 4))
    logits = rng.normal(size=(count, 4)) + 2 * rewards
    mask = rewards == rewards.max(axis=1, keepdims=True)
    pools = [
        {
            "id": str(number),
            "candidates": [
                {"reward": r, "correct": r == 1.0, "kind": "k", "edit": "e"} for r in row
            ],
        }
        for number, row in enumerate(rewards.tolist())
    ]
    return logits, mask, pools


def test_two_candidates_are_fitted_to_the_share_of_right_choices() -> None:
    # Three of four are right with a lead of 2: the likelihood is greatest where sigmoid(2 / T) = 3 / 4.
    logits = np.array([[2.0, 0.0]] * 4)
    mask = np.array([[True, False]] * 3 + [[False, True]])
    fit = fit_choice(logits, mask)
    assert fit.temperature == pytest.approx(2 / np.log(3), rel=1e-6)
    assert not fit.at_bound


def test_the_fit_is_the_least_of_the_training_loss_of_sft() -> None:
    logits, _, pools = random_choices(60, 0)
    rewards = torch.tensor([[one["reward"] for one in pool["candidates"]] for pool in pools])
    wanted = best(rewards)

    def loss(temperature: float) -> float:
        log_policy = (torch.tensor(logits) / temperature).log_softmax(dim=-1)
        return -float(log_policy.masked_fill(~wanted, -torch.inf).logsumexp(dim=-1).mean())

    found = fit_choice(logits, wanted.numpy()).temperature
    assert all(loss(found) < loss(found * factor) for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0))


@given(st.integers(0, 1000), st.floats(0.3, 3.0))
def test_a_selector_whose_logits_are_anothers_times_a_constant_gains_nothing_at_the_fitted_temperature(
    seed: int, factor: float
) -> None:
    logits, mask, pools = random_choices(40, seed)
    plain, scaled = fit_choice(logits, mask), fit_choice(factor * logits, mask)
    assume(not plain.at_bound and 0.2 < plain.temperature < 5)
    assert scaled.temperature == pytest.approx(factor * plain.temperature, rel=1e-5)
    rows = predict("test", pools, logits, plain.temperature)
    surer = predict("test", pools, factor * logits, scaled.temperature)
    for one, other in zip(rows, surer, strict=True):
        for name in ("probability_correct_fitted", "expected_reward_fitted"):
            assert other[name] == pytest.approx(one[name], abs=1e-5)


def test_a_surer_selector_gains_at_temperature_1_and_not_at_the_fitted_one() -> None:
    logits, mask, pools = random_choices(200, 1)
    runs = [
        Run(name, 0, predict("test", pools, scaled, fit_choice(scaled, mask).temperature))
        for name, scaled in (("sft", logits), ("ppo", 3 * logits))
    ]
    changes = compare_runs("selector", runs, 200).results["ppo"].changes["sft"]
    assert changes["sample_accuracy"].value > 0.05
    assert changes["expected_reward"].value > 0.02
    for name in ("accuracy", "fitted_accuracy", "fitted_reward"):
        assert changes[name].value == pytest.approx(0, abs=1e-5)


def test_a_selector_that_is_right_on_all_pools_is_fitted_to_the_bound() -> None:
    logits = np.array([[9.0, 1.0, 8.0], [500.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    mask = np.array([[True, False, True], [True, False, False], [True, True, True]])
    fit = fit_choice(logits, mask)
    assert fit.at_bound
    assert fit.temperature == pytest.approx(LEAST)


def test_a_selector_that_is_wrong_on_all_pools_is_fitted_to_the_other_bound() -> None:
    fit = fit_choice(np.array([[9.0, 1.0]] * 3), np.array([[False, True]] * 3))
    assert fit.at_bound
    assert fit.temperature == pytest.approx(MOST, rel=1e-3)


def test_equal_logits_keep_temperature_1() -> None:
    assert fit_choice(np.zeros((3, 2)), np.array([[True, False]] * 3)).temperature == 1
    assert fit_slopes(np.zeros(len(GRID)), np.zeros(len(GRID))).temperature == 1


def test_logits_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        fit_choice(np.array([[np.nan, 0.0]]), np.array([[True, False]]))


def test_the_curve_of_a_selector_ends_in_its_choice_and_has_its_expected_values() -> None:
    logits, mask, pools = random_choices(50, 2)
    temperature = fit_choice(logits, mask).temperature
    rows = predict("test", pools, logits, temperature)
    greedy, cold, one, fitted = curve(pools, logits, [0.0, 1e-4, 1.0, temperature])
    for name, column in (("accuracy", "probability_correct"), ("reward", "expected_reward")):
        assert one[name] == pytest.approx(np.mean([row[column] for row in rows]), abs=1e-5)
        of_fit = np.mean([row[f"{column}_fitted"] for row in rows])
        assert fitted[name] == pytest.approx(of_fit, abs=1e-5)
        assert cold[name] == pytest.approx(greedy[name], abs=1e-5)
    assert greedy["accuracy"] == pytest.approx(np.mean([row["correct"] for row in rows]), abs=1e-5)


# ------------------------------------------------------------------------------ the generator


TOKENIZER = train_tokenizer(["a b c d e f g h"] * 20, 50, 64)


def drawn(model: Any, temperature: float) -> list[list[list[int]]]:
    """Three completions of each of 16 prompts."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 50, length).tolist() for length in rng.integers(3, 12, 16)]
    groups = sample(
        model,
        TOKENIZER,
        prompts,
        temperatures=[temperature] * 3,
        max_new_tokens=12,
        top_p=1.0,
        seed=0,
        batch_size=8,
    )
    return [
        [[*prompt, *one.ids] for one in group]
        for prompt, group in zip(prompts, groups, strict=True)
    ]


def some_rows() -> list[Any]:
    """Answers that the model gives at temperature 1.3."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 16)
    return [
        Row.masked(ids, [place >= length for place in range(len(ids))])
        for length, group in zip(lengths, drawn(scaled_head(1.0), 1.3), strict=True)
        for ids in group
    ]


def scaled_head(factor: float) -> Any:
    """A Llama whose logits are `factor` times those of the same with 1."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(tiny_config())
    for parameter in model.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        model.get_output_embeddings().weight = nn.Parameter(
            factor * model.get_output_embeddings().weight.detach()
        )
    return model


def test_slopes_are_the_derivatives_of_the_loss_by_log_temperature() -> None:
    torch.manual_seed(0)
    logits, tokens = 3 * torch.randn(7, 20), torch.randint(20, (7,))
    logits[0, (tokens[0] + 1) % 20] = -torch.inf
    found = slopes(logits, tokens)

    def loss(x: Tensor) -> Tensor:
        scaled = logits.double().clamp(min=-1e4) / x.exp()
        return nn.functional.cross_entropy(scaled, tokens, reduction="sum")

    for place, temperature in enumerate(GRID):
        x = torch.tensor(np.log(temperature), requires_grad=True)
        (slope,) = torch.autograd.grad(loss(x), x, create_graph=True)
        assert float(found[0, place]) == pytest.approx(float(slope.detach()), rel=1e-4, abs=1e-3)
        step = 1e-4
        ends = [torch.tensor(np.log(temperature) + s * step, requires_grad=True) for s in (-1, 1)]
        low, high = (float(torch.autograd.grad(loss(end), end)[0]) for end in ends)
        second = (high - low) / (2 * step)
        assert float(found[1, place]) == pytest.approx(second, rel=1e-3, abs=2e-3)


def test_slopes_read_a_large_vocabulary_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(9, 30), torch.randint(30, (9,))
    whole = slopes(logits, tokens)
    monkeypatch.setattr("posttrain.generator.fitted.CHUNK", 70)
    torch.testing.assert_close(slopes(logits, tokens), whole)


def test_a_generator_is_fitted_to_the_least_loss_of_its_actions() -> None:
    model, rows = scaled_head(1.0), some_rows()
    with torch.no_grad():
        batch = collate(rows)
        logits = forward(model, batch).logits.double()

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(nn.functional.cross_entropy(scaled, batch.tokens))

    direct = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    fits = [fit_temperature(model, rows, size) for size in (1, 5)]
    for fit in fits:
        assert not fit.at_bound
        assert fit.temperature == pytest.approx(float(np.exp(direct.x)), rel=1e-3)
    assert fits[0].temperature == pytest.approx(fits[1].temperature, rel=1e-6)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_generator_whose_logits_are_anothers_times_a_constant_writes_the_same_at_the_fitted_temperature(
    factor: float,
) -> None:
    plain, scaled = scaled_head(1.0), scaled_head(factor)
    fits = [fit_temperature(model, some_rows(), 4).temperature for model in (plain, scaled)]
    assert fits[1] == pytest.approx(factor * fits[0], rel=1e-3)
    assert drawn(scaled, fits[1]) == drawn(plain, fits[0])
    assert drawn(scaled, 1.0) != drawn(plain, 1.0)


def test_logits_of_a_broken_generator_are_refused() -> None:
    with pytest.raises(DivergedError):
        slopes(torch.full((2, 5), torch.nan), torch.tensor([0, 1]))


def test_gold_rows_have_the_answers_end_and_all_as_actions() -> None:
    texts = ["what is one and one", "one one two"]
    tokenizer = train_tokenizer(texts * 10, 64, 64)
    examples = [{"id": "a", "prompts": {"direct": texts[0]}, "target": texts[1]}]
    (row,) = gold_rows(examples, tokenizer, PARAMS.selected_model)
    (prompt,), (answer,) = (
        tokenize_prompts(texts[:1], tokenizer),
        tokenize_answers(texts[1:], tokenizer),
    )
    assert answer[-1] == tokenizer.eos_token_id
    assert row.ids == (*prompt, *answer)
    assert row.actions == [False] * len(prompt) + [True] * len(answer)


def test_the_curve_of_a_generator_has_each_temperature_once() -> None:
    def record(correct: bool, reward: float) -> dict[str, Any]:
        return {"correct": correct, "reward": reward}

    groups = [
        [record(True, 1.0), record(True, 1.0), record(False, 0.2), record(False, 0.0)],
        [record(True, 0.8), record(False, 0.0), record(False, 0.2), record(True, 1.0)],
    ]
    found = answers_curve(groups, [0.0, 1.0, 1.0, 0.5])
    assert found == [
        {"temperature": 0.0, "accuracy": 1.0, "reward": 0.9},
        {"temperature": 0.5, "accuracy": 0.5, "reward": 0.5},
        {"temperature": 1.0, "accuracy": 0.25, "reward": 0.35},
    ]


# ------------------------------------------------------------------------------ plot and table


@pytest.fixture
def two_seeds(tmp_path: Path) -> tuple[Path, Any]:
    """Evaluations of SFT and PPO with two seeds; one of PPO's fits is at a bound."""
    runs = []
    for policy, factor in (("sft", 1.0), ("ppo", 2.0)):
        for seed in (0, 1):
            logits, mask, pools = random_choices(30, seed)
            fit = fit_choice(factor * logits, mask)
            if (policy, seed) == ("ppo", 1):
                fit = fit_choice(np.where(mask, 9.0, 0.0), mask)
            runs.append(Run(policy, seed, predict("test", pools, factor * logits, fit.temperature)))
            points = curve(pools, factor * logits, [0.0, 0.5, 1.0, fit.temperature])
            folder = tmp_path / policy / str(seed)
            folder.mkdir(parents=True)
            (folder / "temperatures.json").write_text(json.dumps(described(fit, points)))
    return tmp_path, compare_runs("selector", runs, 100)


def test_the_table_has_greedy_fitted_and_1_side_by_side(two_seeds: tuple[Path, Any]) -> None:
    folder, comparison = two_seeds
    found = read_temperatures(folder, comparison)
    text = temperature_table(found)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    heads, (_, fitted, *cells) = rows[0], rows[2]
    assert heads[2:] == [
        f"{what} %, {way}"
        for what in ("accuracy", "reward")
        for way in ("greedy", "fitted", "at 1")
    ]
    names = ("accuracy", "fitted_accuracy", "sample_accuracy", "reward", "fitted_reward", "expected_reward")  # fmt: skip
    values = comparison.results["sft"].values
    assert cells == [f"{100 * values[name].value:.1f}" for name in names]
    low, high = sorted(found["sft"].fitted)
    assert fitted == f"{(low + high) / 2:.2f} [{low:.2f}, {high:.2f}]"
    assert "The fit of PPO ends at a bound" in text


def test_the_plot_is_drawn_and_its_bytes_depend_on_the_data_alone(
    two_seeds: tuple[Path, Any],
) -> None:
    folder, comparison = two_seeds
    found = read_temperatures(folder, comparison)
    for name in ("one.png", "other.png"):
        plot_temperatures("selector", found, folder / name)
    assert (folder / "one.png").read_bytes() == (folder / "other.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "missing; run dvc repro"),
        ("{}", "not a curve over temperatures"),
        ('{"fitted": 2.0, "at_bound": false, "curve": []}', "has no temperature 0"),
    ],
)
def test_a_file_that_is_no_curve_is_named(
    content: str | None, said: str, two_seeds: tuple[Path, Any]
) -> None:
    folder, comparison = two_seeds
    path = folder / "ppo/1/temperatures.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_temperatures(folder, comparison)
    assert str(path) in str(error.value)

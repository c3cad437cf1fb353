"""Each objective on distributions small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import METHODS, settings

from posttrain.core.methods import load_method
from posttrain.selector.methods import dpo, exact, grpo, ppo, rloo, sft
from posttrain.selector.model import SelectorOutput, ValuedOutput
from posttrain.selector.policy import Batch, entropy, kl_divergence, log_softmax

FREE = {"kl_coef": 0.0, "entropy_coef": 0.0}  # only the reward counts
POLICY = [0.5, 0.25, 0.25]
REWARDS = [1.0, 0.0, 0.5]  # expected reward 0.625
EXACT_GRADIENT = [0.1875, -0.15625, -0.03125]  # policy(k) (r_k - 0.625)


def config(method: str, **changes: Any) -> Any:
    return settings("selector", method, **changes)


def output(policy: list[float], rows: int = 1, value: float = 0.0) -> ValuedOutput:
    """A selector's output whose policy is the one given in each of `rows` rows."""
    logits = torch.tensor([policy]).log().repeat(rows, 1).requires_grad_()
    return ValuedOutput(logits, torch.zeros(rows, 1), torch.full((rows,), value))


def batch(rewards: list[float], rows: int = 1, reference: list[float] | None = None) -> Batch:
    uniform = [1 / len(rewards)] * len(rewards)
    return {
        "rewards": torch.tensor([rewards]).repeat(rows, 1),
        "reference": torch.tensor([reference or uniform]).log().repeat(rows, 1),
    }


def gradient(module: ModuleType, out: SelectorOutput, rows: Batch, own: Any) -> Tensor:
    """Gradient of the objective (minus the loss) with respect to the logits, summed over rows."""
    loss, _ = module.loss(out, rows, own)
    loss.backward()
    assert out.logits.grad is not None
    return -out.logits.grad.sum(dim=0)


def rolled(module: ModuleType, out: ValuedOutput, rows: Batch, own: Any, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    still = dataclasses.replace(out, logits=out.logits.detach())
    result: Batch = module.rollout(lambda: still, rows, own, generator)
    return result


# ------------------------------------------------------------------------------ the policy


def test_kl_and_entropy_by_hand() -> None:
    half, uniform = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.full((1, 3), 1 / 3).log()
    assert entropy(half).item() == pytest.approx(1.5 * math.log(2))
    assert kl_divergence(half, uniform).item() == pytest.approx(math.log(3) - 1.5 * math.log(2))
    assert kl_divergence(half, half).item() == 0.0


# ------------------------------------------------------------------------------ sft


def test_ties_share_the_probability() -> None:
    rows = batch([1.0, 0.0, 1.0, 0.4])
    loss, _ = sft.loss(output([0.1, 0.2, 0.3, 0.4]), rows, config("sft"))
    assert loss.item() == pytest.approx(-math.log(0.1 + 0.3))


def test_ties_keep_their_ratio() -> None:
    """The gradient is policy(k) / mass of the best - policy(k): the larger best gets more."""
    grad = gradient(sft, output([0.1, 0.2, 0.3, 0.4]), batch([1.0, 0, 1, 0.4]), config("sft"))
    torch.testing.assert_close(grad, torch.tensor([0.25 - 0.1, -0.2, 0.75 - 0.3, -0.4]))


# ------------------------------------------------------------------------------ exact


def test_the_exact_gradient_is_the_enumerated_one() -> None:
    grad = gradient(exact, output(POLICY), batch(REWARDS), config("exact", **FREE))
    torch.testing.assert_close(grad, torch.tensor(EXACT_GRADIENT))


def test_the_optimum_with_kl_is_the_reference_tilted_by_the_reward() -> None:
    """policy*(k) ~ reference(k) exp(r_k / kl_coef), where the gradient vanishes."""
    reference, coefficient = [0.2, 0.5, 0.3], 0.7
    tilted = [p * math.exp(r / coefficient) for p, r in zip(reference, REWARDS, strict=True)]
    best = [weight / sum(tilted) for weight in tilted]
    own = config("exact", kl_coef=coefficient, entropy_coef=0.0)
    grad = gradient(exact, output(best), batch(REWARDS, reference=reference), own)
    torch.testing.assert_close(grad, torch.zeros(3), atol=1e-6, rtol=0)


def test_the_entropy_term_pulls_towards_uniform() -> None:
    own = config("exact", kl_coef=0.0, entropy_coef=1.0)
    grad = gradient(exact, output([0.8, 0.1, 0.1]), batch([0.0, 0.0, 0.0]), own)
    assert grad[0] < 0 < grad[1]


# ------------------------------------------------------------------------------ rloo


def test_rloo_advantage_is_the_reward_above_the_mean_of_the_others() -> None:
    rows = rolled(rloo, output(POLICY, 50), batch(REWARDS, 50), config("rloo", samples=3))
    for returns, advantages in zip(rows["returns"], rows["advantages"], strict=True):
        a, b, c = returns.tolist()
        expected = torch.tensor([a - (b + c) / 2, b - (a + c) / 2, c - (a + b) / 2])
        torch.testing.assert_close(advantages, expected)


def test_rloo_gradient_is_unbiased() -> None:
    own = config("rloo", samples=4, **FREE)
    out, rows = output(POLICY, 50_000), batch(REWARDS, 50_000)
    grad = gradient(rloo, out, rolled(rloo, out, rows, own), own)
    torch.testing.assert_close(grad, torch.tensor(EXACT_GRADIENT), atol=0.004, rtol=0)


def test_rloo_clips_the_ratio_of_later_steps_on_the_same_samples() -> None:
    own = config("rloo", samples=2, clip_range=0.2, **FREE)
    rows = rolled(rloo, output(POLICY, 400), batch(REWARDS, 400), own)
    later = output([0.7, 0.2, 0.1], 400)  # candidates 0 and 2 have moved by more than a fifth
    loss, stats = rloo.loss(later, rows, own)
    new, old = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([POLICY])
    ratio = (new / old).expand(400, 3).gather(1, rows["actions"])
    expected = torch.minimum(
        ratio * rows["advantages"], ratio.clamp(0.8, 1.2) * rows["advantages"]
    ).mean()
    assert loss.item() == pytest.approx(-expected.item(), abs=1e-6)
    assert 0 < stats["clip_fraction"] <= 1


# ------------------------------------------------------------------------------ grpo


def test_grpo_advantages_have_mean_zero_and_unit_deviation_in_each_group() -> None:
    rows = rolled(grpo, output(POLICY, 50), batch(REWARDS, 50), config("grpo", samples=8))
    advantages, returns = rows["advantages"], rows["returns"]
    torch.testing.assert_close(advantages.mean(dim=1), torch.zeros(50), atol=1e-6, rtol=0)
    mixed = returns.std(dim=1) > 0
    assert mixed.any()
    deviation = advantages[mixed].std(dim=1)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_divides_by_the_deviation_that_its_settings_name(scale: str) -> None:
    own = config("grpo", samples=8, scale_rewards=scale)
    rows = rolled(grpo, output(POLICY, 50), batch(REWARDS, 50), own)
    returns = rows["returns"]
    deviation = {
        "group": returns.std(dim=1, keepdim=True), "batch": returns.std(), "none": torch.tensor(1.0)
    }[scale]  # fmt: skip
    expected = (returns - returns.mean(dim=1, keepdim=True)) / deviation
    mixed = returns.std(dim=1) > 0
    torch.testing.assert_close(rows["advantages"][mixed], expected[mixed], atol=2e-3, rtol=0)


def test_grpo_gradient_of_the_first_pass_points_where_the_exact_one_does() -> None:
    own = config("grpo", samples=8, **FREE)
    out, rows = output(POLICY, 20_000), batch(REWARDS, 20_000)
    grad = gradient(grpo, out, rolled(grpo, out, rows, own), own)
    assert torch.cosine_similarity(grad, torch.tensor(EXACT_GRADIENT), dim=0) > 0.99


# ------------------------------------------------------------------------------ ppo


def step(advantage: float, ratio: float) -> tuple[SelectorOutput, Batch]:
    """One action, candidate 0, whose probability is `ratio` times its old value of 0.4."""
    old, new = 0.4, 0.4 * ratio
    rows = batch([1.0, 0.0, 0.0]) | {
        "actions": torch.tensor([[0]]),
        "old_log_policy": torch.tensor([[old, 0.3, 0.3]]).log(),
        "advantages": torch.tensor([[advantage]]),
        "returns": torch.tensor([[1.0]]),
    }
    return output([new, (1 - new) / 2, (1 - new) / 2]), rows


@pytest.mark.parametrize("method", ["ppo", "grpo"])
@pytest.mark.parametrize(
    ("advantage", "ratio", "moves"),
    [
        (1, 1.1, True),
        (1, 1.3, False),
        (1, 0.7, True),
        (-1, 0.9, True),
        (-1, 0.7, False),
        (-1, 1.3, True),
    ],
)
def test_outside_the_clip_range_a_good_step_has_no_gradient(
    method: str, advantage: float, ratio: float, moves: bool
) -> None:
    module = load_method("selector", method)
    changes: dict[str, Any] = {"clip_range": 0.2, **FREE}
    out, rows = step(advantage, ratio)
    grad = gradient(module, out, rows, config(method, **changes))
    assert bool(grad.abs().max() > 1e-6) is moves
    _, stats = module.loss(out, rows, config(method, **changes))
    assert stats["clip_fraction"] == float(abs(ratio - 1) > 0.2)


def test_ppo_advantages_are_normalised_over_the_batch() -> None:
    own = config("ppo", samples=4)
    rows = rolled(ppo, output(POLICY, 50, value=0.3), batch(REWARDS, 50), own)
    assert rows["advantages"].mean().item() == pytest.approx(0, abs=1e-6)
    assert rows["advantages"].std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_passes_over_a_batch_stop_once_the_policy_has_moved_too_far() -> None:
    for ratio, stop in ((1.01, 0.0), (2.0, 1.0)):
        _, stats = ppo.loss(*step(1.0, ratio), config("ppo", target_kl=0.05))
        assert stats["stop"] == stop
    _, stats = ppo.loss(*step(1.0, 2.0), config("ppo", target_kl=None))
    assert stats["stop"] == 0.0


# ------------------------------------------------------------------------------ dpo


def test_dpo_loss_is_log_two_at_the_reference() -> None:
    out = output(POLICY, 10)
    rows = batch(REWARDS, 10, reference=POLICY)
    own = config("dpo")
    loss, stats = dpo.loss(out, rolled(dpo, out, rows, own), own)
    assert loss.item() == pytest.approx(math.log(2))
    assert stats["margin"] == pytest.approx(0)


def test_dpo_moves_probability_to_the_better_candidates() -> None:
    own = config("dpo", samples=16)
    out, rows = output(POLICY, 200), batch(REWARDS, 200, reference=POLICY)
    grad = gradient(dpo, out, rolled(dpo, out, rows, own), own)
    best, worst, middle = grad.tolist()
    assert best > middle > worst


def test_dpo_pairs_are_always_the_better_over_the_worse() -> None:
    rows = rolled(dpo, output(POLICY, 30), batch(REWARDS, 30), config("dpo", samples=8))
    better = rows["rewards"].gather(1, rows["chosen"])
    worse = rows["rewards"].gather(1, rows["rejected"])
    assert (better > worse).all()


# ------------------------------------------------------------------------------ all


@pytest.mark.parametrize("worth", [0.2, 0.3, 0.7])
@pytest.mark.parametrize("method", [name for name in METHODS["selector"] if name != "sft"])
def test_a_pool_whose_candidates_are_worth_the_same_teaches_nothing(
    method: str, worth: float
) -> None:
    """Means of six in float32 are not exact, and Adam would follow the rounding like an advantage."""
    module, own = load_method("selector", method), config(method)
    own = own.model_copy(update={key: 0.0 for key in FREE if hasattr(own, key)})
    if hasattr(own, "samples"):
        own = own.model_copy(update={"samples": 6})
    # The last candidate is worth as much in other floats, as sums of parts are.
    out, rows = output(POLICY, 6), batch([worth, worth, worth - 6e-8], 6)
    made = rolled(module, out, rows, own)
    grad = gradient(module, out, made, own)
    # The probabilities of the exact gradient sum to 1 up to rounding.
    torch.testing.assert_close(grad, torch.zeros(3), atol=1e-7 if method == "exact" else 0, rtol=0)
    _, stats = module.loss(out, made, own)
    assert stats.get("equal_rewards", 1.0) == 1.0


@pytest.mark.parametrize("module", [grpo, rloo])
def test_the_share_of_groups_with_equal_rewards_is_on_the_curve(module: ModuleType) -> None:
    own, out = config(module.__name__.rpartition(".")[2], samples=6), output(POLICY, 3)
    rows = batch([0.2, 0.2, 0.2], 3)
    rows["rewards"][2] = torch.tensor([1.0, 0.0, 0.0])
    made = rolled(module, out, rows, own)
    assert made["returns"][2].unique().numel() == 2
    _, stats = module.loss(out, made, own)
    assert stats["equal_rewards"] == pytest.approx(2 / 3)
    assert (made["advantages"][:2] == 0).all() and (made["advantages"][2] != 0).all()


def test_best_candidates_up_to_rounding_share_the_probability() -> None:
    rows = batch([0.2 + 0.1, 0.0, 0.3, 0.1])
    rows["rewards"][0, 0] -= 3e-8
    loss, _ = sft.loss(output([0.1, 0.2, 0.3, 0.4]), rows, config("sft"))
    assert loss.item() == pytest.approx(-math.log(0.1 + 0.3))


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo"])
def test_actions_follow_the_policy(method: str) -> None:
    module = load_method("selector", method)
    rows = rolled(module, output(POLICY, 5000), batch(REWARDS, 5000), config(method))
    shares = torch.bincount(rows["actions"].flatten(), minlength=3) / rows["actions"].numel()
    torch.testing.assert_close(shares, torch.tensor(POLICY), atol=0.015, rtol=0)


def test_every_objective_reports_the_policy_on_the_batch() -> None:
    own = config("exact")
    _, stats = exact.loss(output(POLICY), batch(REWARDS, reference=POLICY), own)
    assert stats == pytest.approx(
        {"reward": 0.625, "greedy_reward": 1.0, "entropy": 1.5 * math.log(2), "kl": 0.0}
    )
    assert log_softmax(output(POLICY).logits).exp().tolist()[0] == pytest.approx(POLICY)

"""Claims about token-level PPO, on a tiny Llama over 16 tokens whose texts are its token numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretrain.model import train_tokenizer
from torch import Tensor
from toys import (
    END,
    TOKEN_PROMPTS,
    Killed,
    colour_data,
    frozen_copy,
    sample_tokens,
    share_right,
    token_model,
    token_settings,
    train_on_tokens,
)
from transformers import AutoModelForCausalLM, LlamaConfig

from posttrain.core.loop import trainable_state
from posttrain.generator import on_policy, shared
from posttrain.generator.batches import collate, forward, in_batches
from posttrain.generator.methods import ppo
from posttrain.generator.on_policy import accumulate_gradients, loss
from posttrain.generator.run import Run
from posttrain.models.architecture import recompute_activations, recomputes
from posttrain.models.lora import add_lora
from posttrain.rollouts import sampling
from posttrain.rollouts.credit import token_gae
from posttrain.rollouts.critic import Critic, ValueHead, explained_variance
from posttrain.rollouts.episode import Episode, Row, Step, Turn, completion_episode
from posttrain.rollouts.groups import whiten


def with_sft_adapter() -> Any:
    """A model whose adapter is not the identity, like an SFT policy's."""
    model = add_lora(token_model(), 4, 8.0, 0.3, "auto", "CAUSAL_LM")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def some_episodes(model: Any, count: int = 6) -> list[Episode]:
    groups = sample_tokens(
        model,
        None,
        TOKEN_PROMPTS[:count],
        temperatures=[1.0],
        max_new_tokens=6,
        top_p=1.0,
        seed=0,
        batch_size=1,
    )
    return [
        completion_episode(prompt, drawn.ids, share_right([drawn.text], [0])[0])
        for prompt, (drawn,) in zip(TOKEN_PROMPTS, groups, strict=False)
    ]


def rows_of(episodes: Sequence[Episode]) -> list[Row]:
    return [row for episode in episodes for row in episode.rows]


def rollout(
    model: Any, critic: Critic, reference: Any, episodes: Any, config: Any, batch_size: int
) -> Any:
    credit = partial(ppo.credit, critic, config)
    return on_policy.rollout(model, reference, episodes, config, batch_size, credit, True)


def gae(rewards: Any, values: Any, gamma: float, gae_lambda: float) -> list[float]:
    """Of actions that are turns of one token each."""
    return token_gae(rewards, values, [1] * len(rewards), gamma, gae_lambda)


def plain_log_probs(model: Any, episode: Episode, temperature: float) -> Tensor:
    """Log-probabilities of one episode's actions, from the model's ordinary output without padding."""
    found = []
    for row in episode.rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([list(row.ids)])).logits[0]
        log_policy = torch.log_softmax(logits.float() / temperature, dim=-1)
        places = [place for place, action in enumerate(row.actions) if action]
        found += [log_policy[place - 1, row.ids[place]] for place in places]
    return torch.stack(found)


def assert_same_weights(one: Any, other: Any) -> None:
    expected = trainable_state(other)
    for name, tensor in trainable_state(one).items():
        assert torch.equal(tensor, expected[name]), name


# ------------------------------------------------------------------------------ advantages and values


def test_gae_by_hand() -> None:
    """delta = [0 + 0.5 * 0.6 - 0.4, 0 + 0.5 * 0.2 - 0.6, 1 - 0.2] = [-0.1, -0.5, 0.8], decay 0.5 * 0.8 = 0.4."""
    advantages = gae([0.0, 0.0, 1.0], [0.4, 0.6, 0.2], gamma=0.5, gae_lambda=0.8)
    assert advantages == pytest.approx([-0.1 + 0.4 * -0.18, -0.5 + 0.4 * 0.8, 0.8])


def test_gae_with_lambda_1_is_the_discounted_return_minus_the_value() -> None:
    rng = random.Random(0)
    rewards, values = [rng.random() for _ in range(9)], [rng.random() for _ in range(9)]
    expected = [
        sum(0.9 ** (later - t) * rewards[later] for later in range(t, 9)) - values[t]
        for t in range(9)
    ]
    assert gae(rewards, values, 0.9, 1.0) == pytest.approx(expected)


def test_gae_with_lambda_0_is_the_error_of_one_step() -> None:
    assert gae([1.0, 2.0], [5.0, 7.0], 0.5, 0.0) == pytest.approx([1 + 3.5 - 5, 2 - 7])


def test_without_discount_and_values_the_advantage_is_the_reward_still_to_come() -> None:
    assert gae([1.0, 0.0, -2.0, 3.0], [0.0] * 4, 1.0, 1.0) == pytest.approx([2.0, 1.0, 1.0, 3.0])


def test_whitened_advantages_have_mean_0_and_deviation_1() -> None:
    torch.testing.assert_close(whiten(torch.tensor([1.0, 3.0])), torch.tensor([-1.0, 1.0]))
    for equal in (2.0, 0.2):
        assert whiten(torch.full((6,), equal)).tolist() == [0.0] * 6


def test_explained_variance_is_1_for_the_returns_and_0_for_a_constant() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert explained_variance(returns, returns) == pytest.approx(1.0)
    assert explained_variance(torch.full((3,), 5.0), returns) == pytest.approx(0.0)
    assert explained_variance(returns, torch.ones(3)) == 0.0
    assert explained_variance(returns, torch.tensor([0.2, 0.2, 0.2 + 3e-8])) == 0.0


def returns_of_states(width: int, scale: float = 1.0, count: int = 1500) -> tuple[Tensor, ...]:
    """States of 16 hidden causes, random confidence, and returns of which a third is noise."""
    mix = torch.randn(16, width, generator=torch.Generator().manual_seed(0))
    causes = torch.randn(count, 16)
    confidence = torch.rand(count, 2)
    signal = 0.2 * causes[:, 0] + 0.5 * confidence[:, 0]
    return scale * causes @ mix, confidence, signal + 0.17 * torch.randn(count)


@pytest.mark.parametrize("scale", [1e-2, 1e3])
@pytest.mark.parametrize("width", [32, 2048])
def test_the_critic_explains_returns_at_every_width_and_scale(width: int, scale: float) -> None:
    torch.manual_seed(0)
    critic, explained = Critic(width, 2), []
    for _ in range(4):
        states, confidence, returns = returns_of_states(width, scale)
        explained.append(explained_variance(critic(states, confidence), returns))
        critic.learn(states, confidence, returns)
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert explained[1:] == pytest.approx([0.67] * 3, abs=0.05)


def test_the_critic_is_the_ridge_regression_of_all_that_it_has_seen() -> None:
    torch.manual_seed(0)
    critic = Critic(8, 2)
    seen = [returns_of_states(8, count=20) for _ in range(3)]
    for states, confidence, returns in seen:
        critic.learn(states, confidence, returns)
    states, confidence, returns = (torch.cat(parts) for parts in zip(*seen, strict=True))
    inputs = torch.cat([torch.layer_norm(states, (8,)) / 8**0.5, confidence, torch.ones(60, 1)], 1)
    rows, targets = torch.cat([inputs, torch.eye(11)]), torch.cat([returns, torch.zeros(11)])
    expected = inputs @ torch.linalg.lstsq(rows, targets[:, None]).solution[:, 0]
    torch.testing.assert_close(critic(states, confidence), expected, atol=1e-4, rtol=1e-4)


def test_a_value_knows_the_probability_of_the_tokens_before_it_and_not_of_its_own() -> None:
    found = ppo._confidence(torch.tensor([0.5, 0.25, 0.125, 0.9]).log())
    expected = [[1, 1], [0.5, 0.5], [0.125, 0.125**0.5], [0.015625, 0.25]]
    torch.testing.assert_close(found, torch.tensor(expected))


# ---------------------------------------------------------------------------------------- episodes


def test_one_completion_is_rewarded_after_its_only_turn() -> None:
    episode = completion_episode([9, 8], [7, 7, END], 0.5)
    (row,) = episode.rows
    assert row.actions == [False, False, True, True, True]
    assert row.turns == (Turn(2, 5, 0.5),) and episode.score == 0.5


# ------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {}),
        ("qwen2", {}),
        ("gemma2", {"final_logit_softcapping": 0.1}),
    ],
)
def test_log_probs_are_those_of_the_ordinary_forward_pass(
    model_type: str, changes: dict[str, Any]
) -> None:
    """Padded or not, at the sampling temperature, and with the model's own changes to its logits."""
    model = token_model(model_type, **changes)
    episodes = some_episodes(model)
    assert len({len(row.ids) for row in rows_of(episodes)}) > 2
    batch = collate(rows_of(episodes))
    with torch.no_grad():
        found = forward(model, batch).log_probs(batch.tokens, 0.7)
    expected = torch.cat([plain_log_probs(model, episode, 0.7) for episode in episodes])
    assert found.shape == (len(expected),)
    torch.testing.assert_close(found, expected)


def test_other_weights_give_their_own_log_probs_and_leave_the_model_as_it_was() -> None:
    model, other = token_model(tie_word_embeddings=True), token_model(tie_word_embeddings=True)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.3)
    before = trainable_state(model)
    episodes = some_episodes(model)
    batch = collate(rows_of(episodes))
    with torch.no_grad():
        found = forward(model, batch, frozen_copy(other)).log_probs(batch.tokens)
    expected = torch.cat([plain_log_probs(other, episode, 1.0) for episode in episodes])
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(before[n], t) for n, t in trainable_state(model).items())


@pytest.mark.parametrize("make", [token_model, with_sft_adapter])
def test_the_kl_is_0_at_the_start_and_the_log_ratio_to_the_start_later(make: Any) -> None:
    """The start is the SFT policy, not the base below its adapter."""
    model = make()
    start, reference = make(), frozen_copy(model)
    episodes = some_episodes(model)
    _, stats = rollout(model, Critic(32, 2), reference, episodes, token_settings(), 4)
    assert stats["kl"] == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    ratios = [
        float((plain_log_probs(model, e, 1.0) - plain_log_probs(start, e, 1.0)).sum())
        for e in episodes
    ]
    _, stats = rollout(model, Critic(32, 2), reference, episodes, token_settings(), 4)
    assert stats["kl"] == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)
    assert abs(stats["kl"]) > 0.01


def test_leaving_the_reference_is_paid_at_every_token() -> None:
    model = token_model()
    reference = frozen_copy(token_model())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    episode = some_episodes(model)[0]
    config = token_settings(kl_coef=0.5, gamma=1.0, gae_lambda=1.0)
    made, _ = rollout(model, Critic(32, 2), reference, [episode], config, 1)
    paid = 0.5 * (
        plain_log_probs(model, episode, 1.0) - plain_log_probs(token_model(), episode, 1.0)
    )
    expected = [episode.score - float(paid[t:].sum()) for t in range(len(paid))]
    torch.testing.assert_close(made.advantages, whiten(torch.tensor(expected)), atol=1e-4, rtol=0)


# --------------------------------------------------------------------------------------- policy loss


def test_the_clipped_objective_by_hand() -> None:
    """Ratios 1.5, 1.5, 0.5, 0.5 and 1.1 with range 0.2: a gain stops at the range, a loss counts in full."""
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    log_probs = ratios.log().requires_grad_()
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 1.0])
    losses, outside = loss(log_probs, torch.zeros(5), advantages, 0.2)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([-2.4, 3.0, -1.0, 1.6, -1.1])
    assert outside.tolist() == [True, True, True, True, False]
    assert log_probs.grad is not None
    assert [bool(g) for g in log_probs.grad] == [False, True, True, False, True]


@pytest.mark.parametrize("make", [token_model, with_sft_adapter])
def test_the_first_pass_has_ratio_1(make: Any) -> None:
    """Exactly, although the adapter has dropout."""
    model = make()
    made, _ = rollout(model, Critic(32, 2), {}, some_episodes(model), token_settings(), 4)
    parts = zip(made.batches, torch.split(made.old_log_probs, made.sizes), strict=True)
    for batch, old_log_probs in parts:
        now = forward(model, batch).log_probs(batch.tokens)
        assert torch.equal(now, old_log_probs)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_padding_and_accumulation_change_neither_loss_nor_gradient(batch_size: int) -> None:
    results = []
    for size in (6, batch_size):
        model = token_model()
        episodes = some_episodes(model)
        torch.manual_seed(0)
        made, _ = rollout(model, Critic(32, 2), {}, episodes, token_settings(), size)
        with torch.no_grad():
            model.lm_head.weight.mul_(2.0)
        stats = accumulate_gradients(model, made, token_settings())
        results.append((stats, {n: p.grad for n, p in model.named_parameters()}))
    (whole, gradients), (parts, other) = results
    assert parts == pytest.approx(whole, abs=1e-6) and whole["clip_fraction"] > 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(other[name], gradient, atol=1e-6, rtol=1e-4)


def several_answers(seed: int) -> list[Episode]:
    """Of two prompts, of a third one answer, and an episode of two turns."""
    rng = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(2, 16) for _ in range(rng.randint(low, high))]

    counts = ((ids(5, 9), 5), ([7], 2), (ids(3, 9), 1))
    one_turn = [
        completion_episode(prompt, ids(1, 6), rng.random())
        for prompt, count in counts
        for _ in range(count)
    ]
    row = Row((9, 3, 4, 5, 6, 7), (Turn(2, 4, 0.5), Turn(5, 6, 1.0)))
    step = Step("", None, True, 0.75, "")
    return [*one_turn, Episode("", 0, (row,), (step, step), "goal", 1.5)]


def test_episodes_of_one_prompt_stand_together() -> None:
    rows = rows_of(several_answers(0))
    batches = in_batches(token_model(), rows, 4)
    assert sorted(map(len, batches)) == [1, 4, 4]
    assert sorted(map(id, rows)) == sorted(id(row) for part in batches for row in part)
    in_order = [row.prompt for part in batches for row in part]
    assert len([*groupby(in_order)]) == len(set(in_order))
    assert rows[-1].prompt == () and rows[5].prompt == (7,)


def test_a_row_of_several_turns_beside_answers_to_one_prompt_is_read_as_if_alone() -> None:
    model, row = token_model(), Row((9, 3, 4, 5, 6, 7), (Turn(2, 4, 0.5), Turn(5, 6, 1.0)))
    answers = [Row((7, 4, 10), (Turn(1, 3, 1.0),)), Row((7, 5, 5), (Turn(1, 3, 1.0),))]
    for rows in ([row, *answers], [*answers, row]):
        batch = collate(rows)
        assert len(batch.groups) == 2
        found = forward(model, batch).log_probs(batch.tokens)
        alone = [forward(model, each).log_probs(each.tokens) for each in map(collate, zip(rows))]
        torch.testing.assert_close(found, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        partial(token_model, tie_word_embeddings=True),
        with_sft_adapter,
        *(partial(token_model, model_type) for model_type in ("gpt2", "gpt_neox", "gemma")),
    ],
)
def test_a_prompt_that_is_read_once_changes_neither_rollout_nor_gradient(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, seen = [], []
    plain = shared.grow
    monkeypatch.setattr(
        shared, "grow", lambda *given, **more: seen.append(1) or plain(*given, **more)
    )
    for once in (True, False):
        if not once:
            monkeypatch.setattr(shared, "reads_once", lambda model, length: False)
        model = make()
        episodes = several_answers(1)
        reference = {name: 1.1 * p for name, p in frozen_copy(model).items()}
        critic = Critic(32, 2)
        torch.manual_seed(0)
        critic.learn(torch.randn(50, 32), torch.rand(50, 2), torch.randn(50))
        made, stats = rollout(model, critic, reference, episodes, token_settings(kl_coef=0.3), 3)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(1.5)
        stats |= accumulate_gradients(model, made, token_settings())
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        results.append((stats, gradients))
    (own, gradients), (other, others) = results
    # Two batches: at the rollout under the policy and the reference, and at the update.
    assert len(seen) == 2 * 3 and own["clip_fraction"] > 0
    assert own == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("credit", ["token", "turn"])
def test_the_loss_of_a_value_head_and_of_entropy_is_that_of_the_formula(credit: str) -> None:
    """Against the whole batch in plain torch; the gradient of the value reaches the policy."""
    model, config = token_model(), token_settings(value_coef=0.5, entropy_coef=0.3, credit=credit)
    head = ValueHead(32)
    torch.manual_seed(1)
    with torch.no_grad():
        head.layer.weight.normal_()
    episodes = several_answers(2)
    made, _ = on_policy.rollout(
        model, {}, episodes, config, 3, partial(ppo.credit, head, config), True
    )
    made = replace(made, returns=head.returns)
    terms = on_policy.Terms(entropy=0.3, value=0.5, head=head)
    found = accumulate_gradients(model, made, config, terms)
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    other, count = token_model(), len(made.advantages)
    total, errors, place = torch.zeros(()), torch.zeros(()), 0
    for batch in made.batches:
        for row, before in zip(batch.ids, batch.before_action, strict=True):
            out = other(input_ids=row[None], output_hidden_states=True)
            log_policy = torch.log_softmax(out.logits[0][before].float(), dim=-1)
            tokens = row.roll(-1)[before]
            own = slice(place, place + len(tokens))
            place += len(tokens)
            chosen = log_policy.gather(1, tokens[:, None]).squeeze(1)
            losses, _ = loss(chosen, made.old_log_probs[own], made.advantages[own], 0.2)
            values = out.hidden_states[-1][0][before] @ head.layer.weight[0].detach()
            assert made.returns is not None
            squares = (values - made.returns[own]).square()
            entropies = -(log_policy.exp() * log_policy).sum(dim=1)
            total = total + (losses + 0.5 * squares - 0.3 * entropies).sum() / count
            errors = errors + squares.sum() / count
    total.backward()
    assert found["policy_loss"] == pytest.approx(float(total.detach()), rel=1e-4)
    assert found["value_loss"] == pytest.approx(float(errors.detach()), rel=1e-4)
    assert head.layer.weight.grad is not None and float(head.layer.weight.grad.abs().sum()) > 0
    for name, parameter in other.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-3)


def test_a_value_head_is_fitted_to_the_advantage_above_its_value() -> None:
    """At lambda 1 and gamma 1 that is the return, whatever the head says; at lambda 0 the value of the next token."""
    episodes = several_answers(3)
    for gae_lambda in (1.0, 0.0):
        config = token_settings(value_coef=0.5, gae_lambda=gae_lambda, gamma=1.0, kl_coef=0.0)
        head = ValueHead(32)
        with torch.no_grad():
            head.layer.weight.fill_(0.1)
        seen: list[Any] = []

        def credit(acted: Any, head: Any = head, config: Any = config, seen: Any = seen) -> Any:
            seen.append(acted)
            return ppo.credit(head, config, acted)

        on_policy.rollout(token_model(), {}, episodes, config, 3, credit, True)
        (acted,) = seen
        for number, episode in enumerate(acted.episodes):
            if len(episode.steps) > 1:
                continue
            found = acted.of(number, head.returns).tolist()
            values = acted.of(number, head(acted.states)).tolist()
            rest = [episode.score] * len(found) if gae_lambda else [*values[1:], episode.score]
            assert found == pytest.approx(rest, abs=1e-5)


# ------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_training_raises_the_reward(temperature: float, tmp_path: Path) -> None:
    """About one token in sixteen is right at the start, and most are at the end."""
    _, history = train_on_tokens(tmp_path, steps=40, temperature=temperature)
    rewards = [row["reward"] for row in history.train]
    assert rewards[0] < 0.15
    assert sum(rewards[-5:]) / 5 > 0.8
    assert history.val[0]["reward"] < history.val[-1]["reward"] == 1.0
    start, *_, end = history.train
    assert end["kl"] > 1.0 and end["entropy"] < 0.5 * start["entropy"]


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    kept, history = train_on_tokens(tmp_path / "kept", steps=3)
    model = token_model()
    recompute_activations(model)
    seen: list[bool] = []
    layer = model.model.layers[0]
    layer.mlp.register_forward_hook(
        lambda *_: seen.append(recomputes(model)) if torch.is_grad_enabled() else None
    )
    recomputed, its_history = train_on_tokens(tmp_path / "recomputed", model=model, steps=3)
    assert seen and all(seen), "every pass that trains recomputes"
    assert history.train[-1] == pytest.approx(its_history.train[-1], abs=1e-3)
    for one, other in zip(kept.parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-3)


def test_an_adapter_is_trained_and_its_base_is_not(tmp_path: Path) -> None:
    model, history = train_on_tokens(
        tmp_path, model=with_sft_adapter(), steps=25, learning_rate=1e-2
    )
    assert history.train[-1]["reward"] > history.train[0]["reward"] + 0.3
    before = dict(with_sft_adapter().named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != ("lora_" in name), name


def test_a_strong_penalty_keeps_the_policy_near_its_start(tmp_path: Path) -> None:
    free, held = (
        train_on_tokens(tmp_path / str(kl_coef), steps=20, kl_coef=kl_coef)[1].train[-1]
        for kl_coef in (0.0, 1.0)
    )
    assert held["kl"] < 0.3 * free["kl"]


@pytest.mark.parametrize("make", [token_model, with_sft_adapter])
@pytest.mark.parametrize("die_at", [1, 4])
def test_resume_equals_uninterrupted(make: Any, die_at: int, tmp_path: Path) -> None:
    """Bit for bit, and the critic with it."""
    changes = {"steps": 6, "inner_epochs": 2}
    whole, history = train_on_tokens(tmp_path / "whole", model=make(), **changes)
    with pytest.raises(Killed):
        train_on_tokens(tmp_path / "killed", model=make(), die_at=die_at, **changes)
    resumed, resumed_history = train_on_tokens(tmp_path / "killed", model=make(), **changes)
    assert_same_weights(resumed, whole)
    assert resumed_history == history


def test_a_resumed_run_does_not_start_over(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train_on_tokens(tmp_path, die_at=5)
    seen = []

    def counting(texts: Sequence[str], rows: Sequence[int]) -> list[float]:
        seen.append(len(texts))
        return share_right(texts, rows)

    train_on_tokens(tmp_path, reward=counting)
    assert seen == [8 * 4]


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    one, history = train_on_tokens(tmp_path / "1", steps=3)
    torch.manual_seed(99)  # the global random state is not part of it
    other, other_history = train_on_tokens(tmp_path / "2", steps=3)
    assert_same_weights(one, other)
    assert history == other_history


def test_the_critic_learns_which_prompts_pay(tmp_path: Path) -> None:
    """The reward depends on the prompt's last token, so the hidden states predict it."""

    def by_prompt(texts: Sequence[str], rows: Sequence[int]) -> list[float]:
        return [float(TOKEN_PROMPTS[row][-1] < 12) for row in rows]

    _, history = train_on_tokens(
        tmp_path, reward=by_prompt, steps=12, learning_rate=1e-9, kl_coef=0.0
    )
    explained = [row["explained_variance"] for row in history.train]
    assert explained[0] == pytest.approx(0.0, abs=1e-6)
    assert sum(explained[-6:]) / 6 > 0.15


def test_rewards_are_asked_for_the_prompts_that_were_drawn_for(tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def remember(texts: Sequence[str], rows: Sequence[int]) -> list[float]:
        asked.append(list(rows))
        return share_right(texts, rows)

    train_on_tokens(tmp_path, reward=remember, steps=3, evaluations=1)
    assert [len(set(rows)) for rows in asked] == [8, 8, 8]
    assert sorted(row for rows in asked for row in rows) == sorted(list(range(24)) * 4)


def test_the_weights_kept_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    rewards, seen = iter([0.9, 0.3, 0.8, 0.5]), []

    def scripted(model: Any) -> dict[str, float]:
        seen.append(trainable_state(model))
        return {"reward": next(rewards)}

    model, history = train_on_tokens(tmp_path, evaluate=scripted, evaluations=3)
    assert [row["step"] for row in history.val] == [0, 2, 4, 6]
    kept = trainable_state(model)
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[2].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in seen[3].items())


def test_a_step_logs_what_one_watches(tmp_path: Path) -> None:
    _, history = train_on_tokens(tmp_path, steps=2)
    assert history.train[-1].keys() == {
        "step",
        "reward",
        "kl",
        "entropy",
        "explained_variance",
        "completion_tokens",
        "finished",
        "policy_loss",
        "clip_fraction",
        "grad_norm",
        "learning_rate",
    }
    assert 0 < history.train[0]["finished"] < 1
    assert 1 < history.train[0]["completion_tokens"] < 6


def test_the_project_s_own_sampler_and_tokens_fit(tmp_path: Path) -> None:
    """Texts with more digits earn more; prompts, sampling and log-probabilities fit together."""
    tokenizer = train_tokenizer(["what was revenue in 2009? 5829", "how much was it? 12"] * 5, 512)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = AutoModelForCausalLM.from_config(config)

    def digits(texts: Sequence[str], rows: Sequence[int]) -> list[float]:
        return [sum(map(str.isdigit, text)) / 5 for text in texts]

    rows = [
        {"prompt": text, "example": place}
        for place, text in enumerate(["what was revenue?", "how much was it in 2009?"])
    ]
    run = Run(
        model=model,
        seed=0,
        work=tmp_path,
        evaluate=lambda model: {"reward": 0.0},
        report=lambda done, total, shown: None,
        tokenizer=tokenizer,
        data=colour_data(prompts=lambda which: rows),
        reward=SimpleNamespace(rewards=digits),  # type: ignore[arg-type]
        sample=sampling.sample,
        in_flight=32,
        max_new_tokens=5,
        batch_size=8,
    )
    history = ppo.train(run, token_settings(steps=16, samples=16, learning_rate=1e-2))
    rewards = [row["reward"] for row in history.train]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 0.3
    assert history.train[0]["kl"] == pytest.approx(0.0, abs=1e-5)

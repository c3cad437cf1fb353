"""SFT, GRPO, RLOO and DPO of the generator with TRL's trainers, and SFT+, on colours learned in a few steps."""

from __future__ import annotations

import copy
import random
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import (
    COLOUR_QUESTIONS,
    COLOUR_TASK,
    COLOUR_TOKENIZER,
    COLOURS,
    Killed,
    colour_data,
    colour_llama,
    colour_pairs,
    colour_question,
    colour_reward,
    colour_task,
    frozen_copy,
    same_weights,
    train_on_colours,
)
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
)
from trl.kernels import chunked_logprob
from trl.trainer import utils
from trl.trainer.utils import add_fused_lm_head

from posttrain.core import processes
from posttrain.core.errors import UserError
from posttrain.generator import shared
from posttrain.generator.data import PairText, pair_rows
from posttrain.generator.methods import dpo
from posttrain.generator.trl import Rollouts, Watch, at_most, last_whole, passes
from posttrain.models.architecture import SHARED_PREFIX, recompute_activations, recomputes
from posttrain.rollouts.rewards import RewardFunction

METHODS = ["sft", "grpo", "rloo", "dpo", "sft_plus"]


# ------------------------------------------------------------------------------------------ rewards


def test_rewards_are_the_scorers_and_verdicts_are_counted_apart() -> None:
    examples = [colour_question("0", "red"), colour_question("1", "white")]
    reward = RewardFunction(COLOUR_TASK, examples, {"share": 0.5})
    assert reward.rewards(["red", "eeee", "", "e"], [0, 0, 0, 1]) == [1 / 3, 1.0, 0.0, 0.0]
    assert reward.counts == {"correct": 1, "wrong": 1, "unparseable": 1, "unscorable": 1}


def test_called_as_trl_calls_it_the_shares_of_verdicts_are_logged() -> None:
    logged: dict[str, float] = {}
    reward = colour_reward()
    rewards = reward(
        completions=["red", "", "ee", "x"],
        example=[0, 0, 0, 0],
        prompts=["?"] * 4,
        completion_ids=[[1]] * 4,
        log_metric=logged.__setitem__,
    )
    assert rewards == [1 / 3, 0.0, 1.0, 0.0]
    assert logged == {"correct": 0.25, "wrong": 0.5, "unparseable": 0.25, "unscorable": 0.0}


# ----------------------------------------------------------------------------------------- trainers


@pytest.mark.parametrize(("count", "there"), [(1, 3), (2, 2), (4, 0)])
def test_fewer_rows_than_a_batch_are_those_that_processes_can_share(
    count: int, there: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: count)
    assert (at_most(4, 3), at_most(4, 9)) == (there, 4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lora", [False, True])
def test_training_changes_the_weights_and_hands_back_a_plain_model(
    method: str, lora: bool, tmp_path: Path
) -> None:
    model = colour_llama(lora)
    start = frozen_copy(model)
    names = {name for name, _ in model.named_parameters()}
    history = train_on_colours(method, tmp_path, model)
    end = frozen_copy(model)
    assert end.keys() == start.keys() and not same_weights(start, end)
    assert {name for name, _ in model.named_parameters()} == names
    assert "forward" not in vars(model)
    assert copy.deepcopy(model)(torch.tensor([[1, 5]])).logits.isfinite().all()
    assert [row["step"] for row in history.train] == [1, 2, 3, 4]
    assert [row["step"] for row in history.val] == [0, 2, 4]
    assert all("loss" in row and "learning_rate" in row for row in history.train)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_gpt2_trains_as_well(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(COLOUR_TOKENIZER),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
    )
    model = GPT2LMHeadModel(config)
    start = frozen_copy(model)
    train_on_colours(method, tmp_path, model)
    assert not same_weights(start, frozen_copy(model))


@pytest.mark.parametrize(
    ("method", "lora", "changes"),
    [
        ("sft", True, {}),
        ("sft_plus", True, {"inner_epochs": 2}),
        ("dpo", False, {}),
        ("dpo", True, {}),
        ("grpo", False, {}),
        ("grpo", True, {"inner_epochs": 2}),
        ("rloo", False, {"inner_epochs": 2}),
        ("rloo", True, {}),
    ],
)
def test_a_resumed_run_ends_like_an_uninterrupted_one(
    method: str, lora: bool, changes: dict[str, Any], tmp_path: Path
) -> None:
    """Weights, best weights and curves, LoRA dropout included, wherever it was killed."""
    whole = colour_llama(lora)
    history = train_on_colours(method, tmp_path / "whole", whole, **changes)
    die_at = random.Random(f"{method}/{lora}").randint(2, 3)
    with pytest.raises(Killed):
        train_on_colours(method, tmp_path / "killed", colour_llama(lora), die_at=die_at, **changes)
    resumed = colour_llama(lora)
    resumed_history = train_on_colours(method, tmp_path / "killed", resumed, **changes)
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))
    assert resumed_history == history


@pytest.mark.parametrize("method", ["sft", "grpo", "dpo"])
def test_a_run_killed_in_the_midst_of_a_later_epoch_ends_like_an_uninterrupted_one(
    method: str, tmp_path: Path
) -> None:
    """8 steps of 2 or 3 each epoch; killed at the sixth, so resumed from the fifth."""
    more = {"epochs": 4} if method == "sft" else {"steps": 8}
    more |= {"prompts_per_step": 8} if method == "grpo" else {}
    whole = colour_llama()
    history = train_on_colours(method, tmp_path / "whole", whole, **more)
    with pytest.raises(Killed):
        train_on_colours(method, tmp_path / "killed", colour_llama(), die_at=6, **more)
    resumed = colour_llama()
    resumed_history = train_on_colours(method, tmp_path / "killed", resumed, **more)
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))
    assert resumed_history == history


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = colour_llama()
    train_on_colours("grpo", tmp_path / "whole", whole, inner_epochs=1)
    work = tmp_path / "killed"
    with pytest.raises(Killed):
        train_on_colours("grpo", work, colour_llama(), die_at=4, inner_epochs=1)
    assert last_whole(work) == work / "checkpoint-3"
    best = work / "checkpoint-3" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100])
    (work / "checkpoint-3" / "optimizer.pt").unlink()
    assert last_whole(work) == work / "checkpoint-2"
    assert not (work / "checkpoint-3").exists()
    resumed = colour_llama()
    train_on_colours("grpo", work, resumed, inner_epochs=1)
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["the weights", "the optimizer"])
def test_a_disk_full_at_a_checkpoint_is_one_line_and_costs_only_that_checkpoint(
    share: float, tmp_path: Path
) -> None:
    """A limit on file size makes a write fail like a full disk; the files after the weights are larger."""
    whole = colour_llama()
    train_on_colours("rloo", tmp_path / "whole", whole, inner_epochs=1)
    work = tmp_path / "full"
    with pytest.raises(Killed):
        train_on_colours("rloo", work, colour_llama(), die_at=3, inner_epochs=1)
    checkpoint = last_whole(work)
    assert checkpoint == work / "checkpoint-2"
    size = (checkpoint / "model.safetensors").stat().st_size
    unlimited, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), most))
    try:
        with pytest.raises(UserError, match=f"cannot write a checkpoint in {work}: ") as caught:
            train_on_colours("rloo", work, colour_llama(), inner_epochs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, most))
    assert "\n" not in str(caught.value)
    assert last_whole(work) == work / "checkpoint-2"
    resumed = colour_llama()
    train_on_colours("rloo", work, resumed, inner_epochs=1)
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))


def test_the_best_weights_survive_a_kill(tmp_path: Path) -> None:
    """The validation at step 2 is the best one; the run dies at step 3 and resumes."""
    seen = []

    def evaluate(model: Any) -> dict[str, float]:
        seen.append(frozen_copy(model))
        return {"reward": [0.1, 0.9, 0.5][len(seen) - 1]}

    with pytest.raises(Killed):
        train_on_colours("rloo", tmp_path, colour_llama(), evaluate=evaluate, die_at=3)
    assert len(seen) == 2
    model = colour_llama()
    history = train_on_colours("rloo", tmp_path, model, evaluate=evaluate)
    assert [row["reward"] for row in history.val] == [0.1, 0.9, 0.5]
    assert same_weights(frozen_copy(model), seen[1]) and not same_weights(
        frozen_copy(model), seen[2]
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_weights(method: str, tmp_path: Path) -> None:
    first, second = colour_llama(), colour_llama()
    torch.manual_seed(1)
    train_on_colours(method, tmp_path / "1", first)
    torch.manual_seed(2)
    train_on_colours(method, tmp_path / "2", second)
    assert same_weights(frozen_copy(first), frozen_copy(second))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_eight_is_two_passes_of_four(method: str, tmp_path: Path) -> None:
    one, two = colour_llama(), colour_llama()
    train_on_colours(method, tmp_path / "1", one, batch_size=8, learning_rate=1e-3)
    train_on_colours(method, tmp_path / "2", two, batch_size=4, accumulation=2, learning_rate=1e-3)
    for name, tensor in frozen_copy(one).items():
        torch.testing.assert_close(frozen_copy(two)[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_recomputed_activations_change_nothing(method: str, tmp_path: Path) -> None:
    """Also where scores share a prompt's cache, which is off with recomputation."""
    kept, recomputed = colour_llama(), colour_llama()
    train_on_colours(method, tmp_path / "kept", kept)
    recompute_activations(recomputed)
    layer = recomputed.model.layers[0]
    passes: list[bool] = []
    layer.mlp.register_forward_hook(
        lambda *_: passes.append(recomputes(recomputed)) if torch.is_grad_enabled() else None
    )
    train_on_colours(method, tmp_path / "recomputed", recomputed)
    assert passes and all(passes)
    for name, tensor in frozen_copy(kept).items():
        assert torch.allclose(frozen_copy(recomputed)[name], tensor, atol=1e-3), name


@pytest.mark.parametrize("method", ["dpo", "grpo", "rloo", "ppo"])
def test_a_pass_of_rl_has_at_most_batch_size_rows(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `accumulation` is, which sets the number of passes of SFT. A row of DPO is a pair."""
    model = colour_llama()
    # Otherwise a prompt and its completions are one row.
    monkeypatch.setattr(shared, "reads_once", lambda *arguments: False)
    rows: list[int] = []

    def count(module: Any, inputs: Any, keywords: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            rows.append(len(keywords["input_ids"]))

    model.model.register_forward_pre_hook(count, with_kwargs=True)
    train_on_colours(method, tmp_path, model, batch_size=4, accumulation=4)
    assert max(rows) == (8 if method == "dpo" else 4)


def spoil_third_step(model: Any) -> Callable[[int, int, Any], None]:
    """Make the states of training passes not finite in step 3; returns the `report` of a run, which counts its steps."""
    done = [0]

    def report(step: int, total: int, shown: Any) -> None:
        done[0] = step

    def spoil(module: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor | None:
        return states * torch.nan if torch.is_grad_enabled() and done[0] == 2 else None

    model.model.norm.register_forward_hook(spoil)
    return report


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_finite_ends_the_training_in_one_line(
    method: str, tmp_path: Path
) -> None:
    model = colour_llama()
    report = spoil_third_step(model)
    message = (
        r"^step 3: \S+ is (nan|not finite), so the training has diverged; lower learning_rate$"
    )
    with pytest.raises(UserError, match=message):
        train_on_colours(method, tmp_path, model, report=report)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("method", [*METHODS, "ppo"])
def test_a_learning_rate_far_too_high_ends_every_method_in_one_line(
    method: str, lora: bool, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        train_on_colours(method, tmp_path, colour_llama(lora), learning_rate=1e30)
    assert re.fullmatch(
        r"step [1234]: .+ (is|are) (nan|inf|not finite), so the training has diverged; lower learning_rate",
        str(caught.value),
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_training_resumes_from_the_checkpoint_before_it_diverged(
    method: str, tmp_path: Path
) -> None:
    whole = colour_llama()
    train_on_colours(method, tmp_path / "whole", whole)
    model = colour_llama()
    report = spoil_third_step(model)
    with pytest.raises(UserError, match=r"^step 3: \S+ is (nan|not finite), so the training"):
        train_on_colours(method, tmp_path / "run", model, report=report)
    steps: list[int] = []
    resumed = colour_llama()
    train_on_colours(
        method, tmp_path / "run", resumed, report=lambda step, total, shown: steps.append(step)
    )
    assert min(steps) == 2
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))


@pytest.mark.parametrize("model_type", sorted(SHARED_PREFIX))
def test_shared_scores_are_those_of_each_completion_alone(model_type: str) -> None:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    sizes |= {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "head_dim": 16}
    config = CONFIG_MAPPING[model_type](**sizes, num_key_value_heads=1, pad_token_id=0)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    written = torch.tensor([5, 1, 3])
    for prompt in (1, 4):
        place = torch.arange(12)
        real = (place >= 7 - prompt) & (place < 7 + written[:, None])
        ids = torch.randint(3, 300, (3, 12))
        ids[:, :7] = ids[0, :7]
        # Beside another prompt, with one completion.
        other, alone = torch.randint(3, 300, (1, 12)), (place >= 5) & (place < 9)
        groups = [shared.Group(3, 7 - prompt, 7), shared.Group(1, 0, 5)]
        own = torch.cat([real & (place >= 7), alone[None]])
        once = shared.scores(model, torch.cat([ids, other]), own, groups)
        assert not once["log_probs"][~own].any()
        log_probs, entropies = once["log_probs"][:3, 7:], once["entropy"][:3, 7:]
        for row in range(3):
            alone = ids[row][real[row]][None]
            log_policy = (model(input_ids=alone).logits[0, prompt - 1 : -1] / 0.7).log_softmax(-1)
            tokens = log_policy.gather(1, alone[0, prompt:, None])[:, 0]
            entropy = -(log_policy.exp() * log_policy).sum(dim=-1)
            torch.testing.assert_close(log_probs[row, : len(tokens)], tokens, atol=1e-5, rtol=0)
            torch.testing.assert_close(entropies[row, : len(tokens)], entropy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lora", [False, True])
def test_a_pair_whose_prompt_is_read_once_trains_as_trl_trains_it(
    lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, margins, accuracies and weights of four steps, in passes of several pairs."""
    models, histories = [colour_llama(lora), colour_llama(lora)], []
    read: list[int] = []
    models[0].register_forward_pre_hook(
        lambda module, inputs, given: read.append(len(given.get("input_ids", ()))), with_kwargs=True
    )
    for model, folder in zip(models, ("own", "trl"), strict=True):
        histories.append(train_on_colours("dpo", tmp_path / folder, model, batch_size=4))
        monkeypatch.setattr(shared, "reads_once", lambda model, length: False)
    assert read.count(4) > 20  # of 8 rows
    for own, other in zip(histories[0].train, histories[1].train, strict=True):
        assert own == pytest.approx(other, rel=1e-3, abs=1e-5)
    assert histories[0].meta == pytest.approx(histories[1].meta)
    end = frozen_copy(models[1])
    for name, weights in frozen_copy(models[0]).items():
        torch.testing.assert_close(weights, end[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("lora", [False, True])
def test_the_gradient_of_a_step_is_that_of_trls_own_trainer(
    method: str, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the policy has left its reference, and in passes of 6 that split a prompt's 4 completions."""
    seen: list[torch.Tensor] = []

    def trained(model: Any) -> list[Any]:
        return [p for p in model.parameters() if p.requires_grad]

    def keep(self: Watch, *arguments: Any, **others: Any) -> None:
        seen.append(torch.cat([p.grad.flatten() for p in trained(self.best.model)]))

    def leave_the_reference(model: Any) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)
        for p in trained(model):
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
        return {"reward": 0.0}

    monkeypatch.setattr(Watch, "on_pre_optimizer_step", keep)
    changes: dict[str, Any] = {
        "steps": 1,
        "inner_epochs": 2,
        "learning_rate": 1e-5,
        "batch_size": 6,
    }
    changes |= {"prompts_per_step": 6, "samples": 4, "evaluations": 1, "max_grad_norm": 1e3}
    train_on_colours(
        method, tmp_path / "own", colour_llama(lora), evaluate=leave_the_reference, **changes
    )
    monkeypatch.delattr(Rollouts, "_prepare_inputs")
    monkeypatch.delattr(Rollouts, "_get_per_token_logps_and_entropies")
    train_on_colours(
        method, tmp_path / "trl", colour_llama(lora), evaluate=leave_the_reference, **changes
    )
    first, second, *theirs = seen
    for own, other in zip((first, second), theirs, strict=True):
        assert float(other.norm()) > 1e-2
        assert float((own - other).norm()) < 1e-4 * float(other.norm())


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_only_positions_with_a_label_are_scored_which_changes_nothing(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []

    class Counting:
        @staticmethod
        def apply(states: torch.Tensor, *others: Any) -> Any:
            scored.append(len(states))
            return chunked_logprob.ChunkedLogProbFunction.apply(states, *others)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Counting)
    monkeypatch.setattr(shared, "reads_once", lambda model, length: False)
    models, histories = [colour_llama(), colour_llama()], []
    for model, folder in zip(models, ("own", "trl"), strict=True):
        histories.append(train_on_colours(method, tmp_path / folder, model))
        monkeypatch.setattr(utils, "_use_triton", chunked_logprob._use_triton)
    own, others = scored[: len(scored) // 2], scored[len(scored) // 2 :]
    assert len(own) == len(others) and 2 * sum(own) < sum(others)
    for row, other in zip(histories[0].train, histories[1].train, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-5)
    for name, weights in frozen_copy(models[0]).items():
        torch.testing.assert_close(weights, frozen_copy(models[1])[name], atol=1e-4, rtol=0)


def test_passes_are_the_largest_equal_ones_that_fit() -> None:
    assert passes(64, 4) == (4, 16)
    assert passes(12, 5) == (4, 3)
    assert passes(7, 4) == (1, 7)
    assert passes(2, 4) == (2, 1)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reference_is_the_model_as_it_came_in(method: str, tmp_path: Path) -> None:
    """At the first step the policy is its own reference, and a step later it no longer is."""
    for lora in (False, True):
        model = colour_llama(lora, seed=7)
        history = train_on_colours(method, tmp_path / str(lora), model, inner_epochs=1)
        assert history.train[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert abs(history.train[3]["kl"]) > 1e-6


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_rises_clearly(method: str, tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        return {"reward": 0.0}

    history = train_on_colours(
        method,
        tmp_path,
        colour_llama(),
        batch_size=32,
        evaluate=evaluate,
        task=colour_task("0123456789"),
        evaluations=1,
        steps=16,
        samples=8,
        kl_coef=0.001,
        learning_rate=2e-2,
    )
    rewards = [row["reward"] for row in history.train]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2


@pytest.mark.parametrize("samples", [3, 6])
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_groups_of_equal_rewards_are_counted_and_move_nothing(
    method: str, samples: int, tmp_path: Path
) -> None:
    """The mean of three rewards of 0.2 is not 0.2 in float32, and Adam follows the smallest of gradients."""

    class Equal(RewardFunction):
        def __call__(
            self, completions: Any, example: Any, log_metric: Any = None, **others: Any
        ) -> list[float]:
            return [0.2 if n % 2 else (0.1 + 0.3) / 2 for n in range(len(completions))]

    model = colour_llama()
    start = frozen_copy(model)
    history = train_on_colours(
        method, tmp_path, model, reward=Equal, samples=samples, kl_coef=0.0, batch_size=24
    )
    assert [row["equal_rewards"] for row in history.train] == [1.0] * 4
    assert same_weights(frozen_copy(model), start)


def test_groups_of_different_rewards_are_not_counted_as_equal(tmp_path: Path) -> None:
    history = train_on_colours("grpo", tmp_path, colour_llama(), samples=4, batch_size=16)
    for row in history.train:
        assert (row["equal_rewards"] < 1) == (row["reward_std"] > 0)


@pytest.mark.parametrize("method", ["grpo", "rloo", "dpo", "sft", "sft_plus"])
def test_a_single_question_is_trained_on(method: str, tmp_path: Path) -> None:
    model, one = colour_llama(), colour_data()
    start = frozen_copy(model)
    data = colour_data(
        prompts=lambda which: one.prompts(which)[:1],
        pairs=lambda part: one.pairs(part)[: int(part == "train")],
        gold_answers=lambda which="all": one.gold_answers()[:1],
    )
    letters = colour_task("0123456789abcdefghijklmnopqrstuvwxyz")
    several = {"samples": 4} if method in ("grpo", "rloo") else {}
    history = train_on_colours(method, tmp_path, model, data=data, task=letters, **several)
    assert not same_weights(frozen_copy(model), start)
    assert not history.meta  # no pair is held out


def test_sft_learns_the_answers(tmp_path: Path) -> None:
    history = train_on_colours("sft", tmp_path, colour_llama(), epochs=20)
    assert history.train[-1]["loss"] < 0.1 * history.train[0]["loss"]


def test_dpo_prefers_what_it_was_told_to_on_pairs_it_has_not_seen(tmp_path: Path) -> None:
    never_red = [
        PairText(e["id"], e["prompts"]["direct"], COLOURS[1 + n % 3], "red")
        for n, e in enumerate(COLOUR_QUESTIONS)
    ]
    rows, _ = pair_rows(never_red, COLOUR_TOKENIZER, 32, 8)
    parts = {"train": rows[:18], "held_out": rows[18:]}
    history = train_on_colours(
        "dpo",
        tmp_path,
        colour_llama(),
        data=colour_data(pairs=parts.__getitem__),
        evaluate=lambda model: {"reward": 0.0},
        seed=0,
        steps=12,
    )
    assert history.meta["preference_accuracy_before"] < 1
    assert history.meta["preference_accuracy_after"] == 1
    assert history.meta["implicit_accuracy"] == 1


def test_pair_log_probs_are_those_of_each_sequence_alone() -> None:
    model, rows = colour_llama().eval(), colour_pairs()[:3]
    found = dpo.pair_log_probs(model, rows, batch_size=2)
    for row, value in zip(rows, found.chosen, strict=True):
        ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
        log_policy = model(ids).logits[0, :-1].log_softmax(-1)
        tokens = log_policy.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :]
        assert float(value) == pytest.approx(float(tokens.detach().sum()), abs=1e-4)

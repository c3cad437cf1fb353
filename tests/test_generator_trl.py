"""SFT, GRPO, RLOO and DPO of the generator on TRL's trainers, on tasks that a tiny Llama learns in a few steps."""

from __future__ import annotations

import copy
import random
import resource
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pretrain.model import train_tokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from trl.trainer.utils import add_fused_lm_head
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.core.training import History
from posttrain.generator.data import (
    PairText,
    mixed_questions,
    pair_rows,
    prompt_completion_rows,
    prompt_rows,
)
from posttrain.generator.methods import dpo, grpo, rloo, sft
from posttrain.generator.trl import Rollouts, Watch, last_whole, passes, shared_scores
from posttrain.models.architecture import SHARED_PREFIX, recompute_activations, recomputes
from posttrain.models.lora import add_lora
from posttrain.models.tokens import SEPARATOR
from posttrain.rollouts.rewards import RewardFunction
from posttrain.rollouts.sampling import sample

PARAMS = load_params(ROOT / "params.yaml")
COLOURS = ["red", "green", "blue", "white"]
TEXTS = [f"which colour has {colour} ?\n{colour}" for colour in COLOURS] * 4
TOKENIZER = train_tokenizer(TEXTS, 420)
METHODS = ["sft", "grpo", "rloo", "dpo"]
ON_POLICY = {"grpo": grpo.train, "rloo": rloo.train}


class Killed(Exception):
    pass


class Repeat:
    """A task: say the colour of the question. The reward is the share of `letters` in the answer."""

    letters = "e"

    def render_prompt(self, example: Mapping[str, Any]) -> str:
        return f"which colour has {example['colour']} ?"

    def render_target(self, example: Mapping[str, Any]) -> str:
        return str(example["colour"])

    def score(self, text: str, example: Mapping[str, Any], tolerance: float) -> Any:
        status = "scored"
        if example["colour"] == "white":
            status = "unscorable"
        elif not text:
            status = "unparseable"
        share = sum(map(text.count, self.letters)) / len(text) if status == "scored" else 0.0
        right = status == "scored" and text == example["colour"]
        return SimpleNamespace(status=status, components={"share": share}, execution_correct=right)

    def reward(self, components: Mapping[str, float], weights: Mapping[str, float]) -> float:
        return components["share"] * weights["share"]


class Digits(Repeat):
    """A task: say digits."""

    letters = "0123456789"


TASK: Any = Repeat()
EXAMPLES = [{"id": str(n), "colour": COLOURS[n % 3]} for n in range(24)]


def llama(lora: bool = False, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=TOKENIZER.pad_token_id,
        bos_token_id=TOKENIZER.bos_token_id,
        eos_token_id=TOKENIZER.eos_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    return add_lora(model, 4, 8, 0.1, "auto", "CAUSAL_LM") if lora else model


def reward_function(task: Any = TASK) -> RewardFunction:
    return RewardFunction(task, EXAMPLES, 0.01, {"share": 1.0})


def pairs() -> list[Any]:
    """For each question, its colour is better than another one."""
    made = [
        PairText(e["id"], TASK.render_prompt(e), e["colour"], COLOURS[(n + 1) % 3])
        for n, e in enumerate(EXAMPLES)
    ]
    return pair_rows(made, TOKENIZER, 32, 8)[0]


def no_progress(done: int, total: int, shown: Any) -> None: ...


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def run(
    method: str,
    work: Path,
    model: Any,
    *,
    die_at: int | None = None,
    batch_size: int = 8,
    accumulation: int = 1,
    evaluate: Any = None,
    task: Any = TASK,
    **changes: Any,
) -> History:
    """Train with 4 steps of 8 rows, validating at steps 2 and 4."""
    start = weights(model)

    def distance(model: Any) -> dict[str, float]:
        """How far it has come; so the last weights are the best."""
        torch.rand(7)  # a validation that draws numbers changes nothing
        moved = float(sum((p - start[n]).abs().sum() for n, p in weights(model).items()))
        return {"reward": moved, "execution_accuracy": moved}

    def report(done: int, total: int, shown: Any) -> None:
        if done == die_at and shown:
            raise Killed

    common: dict[str, Any] = {"seed": 3, "work": work, "evaluate": evaluate or distance}
    common |= {"report": report, "batch_size": batch_size}
    changes = {"learning_rate": 1e-2, "evaluations": 2, **changes}
    if method == "sft":
        changes = {"epochs": 2, **changes}
        config: Any = PARAMS.sft.generator.model_copy(update=changes)
        rows, _ = prompt_completion_rows(EXAMPLES[:16], TASK, TOKENIZER, 32, 8)
        return sft.train(model, TOKENIZER, rows, config, accumulation=accumulation, **common)
    changes = {"steps": 4, **changes}
    if method == "dpo":
        config = PARAMS.rl.generator.dpo.model_copy(update={"pairs_per_step": 8, **changes})
        return dpo.train(model, TOKENIZER, pairs(), pairs()[:4], config, **common)[0]
    changes = {"prompts_per_step": 4, "samples": 2, "kl_coef": 0.1, **changes}
    config = PARAMS.rl.generator.of(method).model_copy(update=changes)
    return ON_POLICY[method](
        model,
        TOKENIZER,
        prompt_rows(EXAMPLES, TASK, TOKENIZER, 32)[0],
        reward_function(task),
        config,
        max_completion_tokens=6,
        sample=sample,
        in_flight=8,
        **common,
    )


# --------------------------------------------------------------------------------------------- data


def test_labels_are_the_completion_with_its_end_and_nothing_else() -> None:
    rows, dropped = prompt_completion_rows(EXAMPLES[:1], TASK, TOKENIZER, 32, 8)
    (row,) = rows
    labels = [label for label in row["labels"] if label != -100]
    assert TOKENIZER.decode(labels) == f"{SEPARATOR}red{TOKENIZER.eos_token}"
    assert row["input_ids"][-len(labels) :] == labels
    assert TOKENIZER.decode(row["input_ids"][: -len(labels)]) == "<bos>which colour has red ?"
    assert not dropped


def test_an_overlong_example_is_dropped_from_training_and_an_error_in_validation() -> None:
    long = [{"id": "long", "colour": "red" * 9}, EXAMPLES[0]]
    rows, dropped = prompt_completion_rows(long, TASK, TOKENIZER, 64, 8)
    assert len(rows) == 1 and dropped == ["long"]
    with pytest.raises(UserError, match=r"1 of 2 examples exceed .*the first is long: prompt"):
        prompt_completion_rows(long, TASK, TOKENIZER, 64, 8, overlong="error")
    with pytest.raises(UserError, match="no example fits"):
        prompt_completion_rows(long, TASK, TOKENIZER, 2, 8)


def test_mixed_questions_are_those_with_right_and_wrong_samples() -> None:
    drawn = [("a", True), ("a", False), ("b", True), ("b", True), ("c", False), ("c", False)]
    samples = [{"id": name, "correct": correct} for name, correct in drawn]
    assert mixed_questions(samples, 1) == {"a"}
    with pytest.raises(
        UserError, match=r"^of 3 sampled questions 1 have right and wrong .* prompts_per_step=2"
    ):
        mixed_questions(samples, 2)


def test_prompt_rows_say_which_example_they_are_of_when_others_are_dropped() -> None:
    long = [{"id": "long", "colour": "red" * 30}, EXAMPLES[1]]
    rows, dropped = prompt_rows(long, TASK, TOKENIZER, 32)
    assert rows == [{"prompt": "which colour has green ?", "example": 1}]
    assert dropped == ["long"]


def test_a_pair_is_tokenised_as_prompts_and_answers_are() -> None:
    (row, *_) = pairs()
    (other, *_) = prompt_completion_rows(EXAMPLES[:1], TASK, TOKENIZER, 32, 8)[0]
    assert row["prompt_ids"] + row["chosen_ids"] == other["input_ids"]


# ------------------------------------------------------------------------------------------ rewards


def test_rewards_are_the_scorers_and_verdicts_are_counted_apart() -> None:
    examples = [{"id": "0", "colour": "red"}, {"id": "1", "colour": "white"}]
    reward = RewardFunction(TASK, examples, 0.01, {"share": 0.5})
    assert reward.rewards(["red", "eeee", "", "e"], [0, 0, 0, 1]) == [0.5 / 3, 0.5, 0.0, 0.0]
    assert reward.counts == {"correct": 1, "wrong": 1, "unparseable": 1, "unscorable": 1}


def test_called_as_trl_calls_it_the_separator_is_no_part_of_the_answer() -> None:
    logged: dict[str, float] = {}
    reward = reward_function()
    rewards = reward(
        completions=["\nred", "\n", "ee", "\nx"],
        example=[0, 0, 0, 0],
        prompts=["?"] * 4,
        completion_ids=[[1]] * 4,
        log_metric=logged.__setitem__,
    )
    assert rewards == [1 / 3, 0.0, 1.0, 0.0]
    assert logged == {"correct": 0.25, "wrong": 0.5, "unparseable": 0.25, "unscorable": 0.0}


# ----------------------------------------------------------------------------------------- trainers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lora", [False, True])
def test_training_changes_the_weights_and_hands_back_a_plain_model(
    method: str, lora: bool, tmp_path: Path
) -> None:
    model = llama(lora)
    start = weights(model)
    names = {name for name, _ in model.named_parameters()}
    history = run(method, tmp_path, model)
    end = weights(model)
    assert end.keys() == start.keys() and not same(start, end)
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
        vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1
    )
    model = GPT2LMHeadModel(config)
    start = weights(model)
    run(method, tmp_path, model)
    assert not same(start, weights(model))


@pytest.mark.parametrize(
    ("method", "lora", "changes"),
    [
        ("sft", True, {}),
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
    whole = llama(lora)
    history = run(method, tmp_path / "whole", whole, **changes)
    die_at = random.Random(f"{method}/{lora}").randint(2, 3)
    with pytest.raises(Killed):
        run(method, tmp_path / "killed", llama(lora), die_at=die_at, **changes)
    resumed = llama(lora)
    resumed_history = run(method, tmp_path / "killed", resumed, **changes)
    assert same(weights(resumed), weights(whole))
    assert resumed_history == history


def test_a_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = llama()
    run("grpo", tmp_path / "whole", whole)
    work = tmp_path / "killed"
    with pytest.raises(Killed):
        run("grpo", work, llama(), die_at=4)
    assert last_whole(work) == work / "checkpoint-3"
    best = work / "checkpoint-3" / "best.safetensors"
    best.write_bytes(best.read_bytes()[:100])
    (work / "checkpoint-3" / "optimizer.pt").unlink()
    assert last_whole(work) == work / "checkpoint-2"
    assert not (work / "checkpoint-3").exists()
    resumed = llama()
    run("grpo", work, resumed)
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize("share", [0.5, 1.5], ids=["the weights", "the optimizer"])
def test_a_disk_full_at_a_checkpoint_is_one_line_and_costs_only_that_checkpoint(
    share: float, tmp_path: Path
) -> None:
    """A limit on the size of files fails a write as a full disk does; what follows the weights is larger."""
    whole = llama()
    run("rloo", tmp_path / "whole", whole)
    work = tmp_path / "full"
    with pytest.raises(Killed):
        run("rloo", work, llama(), die_at=3)
    checkpoint = last_whole(work)
    assert checkpoint == work / "checkpoint-2"
    size = (checkpoint / "model.safetensors").stat().st_size
    unlimited, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), most))
    try:
        with pytest.raises(UserError, match=f"cannot write a checkpoint in {work}: ") as caught:
            run("rloo", work, llama())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, most))
    assert "\n" not in str(caught.value)
    assert last_whole(work) == work / "checkpoint-2"
    resumed = llama()
    run("rloo", work, resumed)
    assert same(weights(resumed), weights(whole))


def test_the_best_weights_survive_a_kill(tmp_path: Path) -> None:
    """The validation at step 2 is the best one; the run dies at step 3 and resumes."""
    seen = []

    def evaluate(model: Any) -> dict[str, float]:
        seen.append(weights(model))
        return {"reward": [0.1, 0.9, 0.5][len(seen) - 1]}

    with pytest.raises(Killed):
        run("rloo", tmp_path, llama(), evaluate=evaluate, die_at=3)
    assert len(seen) == 2
    model = llama()
    history = run("rloo", tmp_path, model, evaluate=evaluate)
    assert [row["reward"] for row in history.val] == [0.1, 0.9, 0.5]
    assert same(weights(model), seen[1]) and not same(weights(model), seen[2])


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_weights(method: str, tmp_path: Path) -> None:
    first, second = llama(), llama()
    torch.manual_seed(1)
    run(method, tmp_path / "1", first)
    torch.manual_seed(2)
    run(method, tmp_path / "2", second)
    assert same(weights(first), weights(second))


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_eight_is_two_passes_of_four(method: str, tmp_path: Path) -> None:
    one, two = llama(), llama()
    run(method, tmp_path / "1", one, batch_size=8, learning_rate=1e-3)
    run(method, tmp_path / "2", two, batch_size=4, accumulation=2, learning_rate=1e-3)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(weights(two)[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_recomputed_activations_change_nothing(method: str, tmp_path: Path) -> None:
    """Also where scores share a prompt's cache, which recomputing does without."""
    kept, recomputed = llama(), llama()
    run(method, tmp_path / "kept", kept)
    recompute_activations(recomputed)
    layer = recomputed.model.layers[0]
    passes: list[bool] = []
    layer.mlp.register_forward_hook(
        lambda *_: passes.append(recomputes(recomputed)) if torch.is_grad_enabled() else None
    )
    run(method, tmp_path / "recomputed", recomputed)
    assert passes and all(passes)
    for name, tensor in weights(kept).items():
        assert torch.allclose(weights(recomputed)[name], tensor, atol=1e-3), name


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
        log_probs, entropies = shared_scores(model, ids, real, 5)
        assert entropies is not None and not log_probs[~real[:, 7:]].any()
        for row in range(3):
            alone = ids[row][real[row]][None]
            log_policy = (model(input_ids=alone).logits[0, prompt - 1 : -1] / 0.7).log_softmax(-1)
            tokens = log_policy.gather(1, alone[0, prompt:, None])[:, 0]
            entropy = -(log_policy.exp() * log_policy).sum(dim=-1)
            torch.testing.assert_close(log_probs[row, : len(tokens)], tokens, atol=1e-5, rtol=0)
            torch.testing.assert_close(entropies[row, : len(tokens)], entropy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("lora", [False, True])
def test_the_gradient_of_a_step_is_that_of_trls_own_trainer(
    method: str, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the policy has left its reference, and in passes of 6 that part a prompt's 4 completions."""
    seen: list[torch.Tensor] = []

    def keep(self: Watch, *arguments: Any, **others: Any) -> None:
        seen.append(torch.cat([p.grad.flatten() for p in self.parameters.values()]))

    def leave_the_reference(model: Any) -> dict[str, float]:
        generator = torch.Generator().manual_seed(1)
        for p in model.parameters():
            if p.requires_grad:
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
    run(method, tmp_path / "own", llama(lora), evaluate=leave_the_reference, **changes)
    monkeypatch.delattr(Rollouts, "_prepare_inputs")
    monkeypatch.delattr(Rollouts, "_get_per_token_logps_and_entropies")
    run(method, tmp_path / "trl", llama(lora), evaluate=leave_the_reference, **changes)
    first, second, *theirs = seen
    for own, other in zip((first, second), theirs, strict=True):
        assert float(other.norm()) > 1e-2
        assert float((own - other).norm()) < 1e-4 * float(other.norm())


def test_passes_are_the_largest_equal_ones_that_fit() -> None:
    assert passes(64, 4) == (4, 16)
    assert passes(12, 5) == (4, 3)
    assert passes(7, 4) == (1, 7)
    assert passes(2, 4) == (2, 1)


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reference_is_the_model_as_it_came_in(method: str, tmp_path: Path) -> None:
    """At the first step the policy is its own reference, and a step later it no longer is."""
    for lora in (False, True):
        model = llama(lora, seed=7)
        history = run(method, tmp_path / str(lora), model)
        assert history.train[0]["kl"] == pytest.approx(0, abs=1e-6)
        assert abs(history.train[3]["kl"]) > 1e-6


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_rises_clearly(method: str, tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        return {"reward": 0.0}

    history = run(
        method,
        tmp_path,
        llama(),
        batch_size=32,
        evaluate=evaluate,
        task=Digits(),
        evaluations=1,
        steps=16,
        samples=8,
        kl_coef=0.001,
        learning_rate=2e-2,
    )
    rewards = [row["reward"] for row in history.train]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2


def test_sft_learns_the_answers(tmp_path: Path) -> None:
    history = run("sft", tmp_path, llama(), epochs=20)
    assert history.train[-1]["loss"] < 0.1 * history.train[0]["loss"]


def test_dpo_prefers_what_it_was_told_to_on_pairs_it_has_not_seen(tmp_path: Path) -> None:
    never_red = [
        PairText(e["id"], TASK.render_prompt(e), COLOURS[1 + n % 3], "red")
        for n, e in enumerate(EXAMPLES)
    ]
    rows, _ = pair_rows(never_red, TOKENIZER, 32, 8)
    config = PARAMS.rl.generator.dpo.model_copy(
        update={"steps": 12, "pairs_per_step": 8, "learning_rate": 1e-2}
    )
    model = llama()
    _, preference = dpo.train(
        model,
        TOKENIZER,
        rows[:18],
        rows[18:],
        config,
        batch_size=8,
        seed=0,
        work=tmp_path,
        evaluate=lambda model: {"reward": 0.0},
        report=no_progress,
    )
    assert preference["preference_accuracy_before"] < 1
    assert preference["preference_accuracy_after"] == 1
    assert preference["implicit_accuracy"] == 1


def test_pair_log_probs_are_those_of_each_sequence_alone() -> None:
    model, rows = llama().eval(), pairs()[:3]
    found = dpo.pair_log_probs(model, rows, batch_size=2)
    for row, value in zip(rows, found.chosen, strict=True):
        ids = torch.tensor([row["prompt_ids"] + row["chosen_ids"]])
        log_policy = model(ids).logits[0, :-1].log_softmax(-1)
        tokens = log_policy.gather(1, ids[0, 1:, None])[len(row["prompt_ids"]) - 1 :]
        assert float(value) == pytest.approx(float(tokens.detach().sum()), abs=1e-4)

"""The training loop on a task that a tiny Llama learns in a few steps."""

from __future__ import annotations

import random
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from workspace import METHODS, ROOT

from posttrain.core.checkpoint import CheckpointFile
from posttrain.core.params import load_params
from posttrain.core.training import trainable_state
from posttrain.selector import train as loop
from posttrain.selector.batch import TokenizedPool
from posttrain.selector.model import Selector, SelectorOutput
from posttrain.selector.policy import Batch, Stats, log_softmax
from posttrain.selector.train import History, Pools, Schedule, steps_of_batches, train

PARAMS = load_params(ROOT / "params.yaml")
ALGORITHMS: dict[str, Any] = {
    method: import_module(f"posttrain.selector.{method}") for method in ("sft", *METHODS)
}
RIGHT = 7  # the token that makes a candidate right


class Killed(Exception):
    pass


def pools(count: int, seed: int) -> Pools:
    """Prompts of noise; of four candidates of noise one holds token 7, and is worth 1."""
    rng = random.Random(seed)
    made, rewards = [], []
    for number in range(count):
        right = rng.randrange(4)
        prompt = [rng.randrange(10, 30) for _ in range(rng.randint(3, 8))]
        candidates = [[rng.randrange(10, 30) for _ in range(3)] for _ in range(4)]
        candidates[right][rng.randrange(3)] = RIGHT
        made.append(TokenizedPool(str(number), prompt, candidates))
        rewards.append([float(slot == right) for slot in range(4)])
    reference = torch.full((count, 4), 0.25).log()
    return Pools(made, torch.tensor(rewards), reference)


DATA, VAL = pools(64, 0), pools(32, 1)


def new_selector(dropout: float = 0.0) -> Selector:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        attention_dropout=dropout,
    )
    return Selector(LlamaForCausalLM(config)).train()


def settings(method: str, **changes: Any) -> Any:
    section: Any = PARAMS.sft.selector if method == "sft" else PARAMS.rl.selector.of(method)
    return section.model_copy(update={"evaluations": 2, "learning_rate": 1e-2, **changes})


def run(
    method: str,
    directory: Path,
    *,
    selector: Selector | None = None,
    steps: int = 10,
    batch_size: int = 16,
    die_at: int | None = None,
    **changes: Any,
) -> tuple[Selector, History]:
    selector = selector or new_selector()
    section = settings(method, **changes)
    inner = getattr(section, "inner_epochs", 1)
    minibatches = getattr(section, "minibatches", 1)

    def report(done: int, total: int, history: History) -> None:
        if done == die_at:
            raise Killed

    history = train(
        selector,
        ALGORITHMS[method],
        section,
        Schedule(steps_of_batches(DATA.pools, 16, steps, seed=3), inner, minibatches),
        DATA,
        VAL,
        batch_size=batch_size,
        seed=3,
        checkpoint=CheckpointFile("run", directory),
        report=report,
    )
    return selector, history


def assert_same_weights(one: Selector, other: Selector) -> None:
    expected = trainable_state(other)
    for name, tensor in trainable_state(one).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", ["sft", *METHODS])
def test_training_raises_the_reward(method: str, tmp_path: Path) -> None:
    _, history = run(method, tmp_path, steps=40)
    start, *_, end = history.val
    assert start["reward"] < 0.6
    assert end["reward"] > 0.9
    assert end["expected_reward"] > start["expected_reward"] + 0.1


@pytest.mark.parametrize("method", ["sft", *METHODS])
def test_a_resumed_run_ends_like_an_uninterrupted_one(method: str, tmp_path: Path) -> None:
    """Bit for bit, dropout and sampling included, wherever it was killed."""
    whole, history = run(method, tmp_path / "whole", selector=new_selector(0.3))
    die_at = random.Random(method).randint(1, 9)
    with pytest.raises(Killed):
        run(method, tmp_path / "killed", selector=new_selector(0.3), die_at=die_at)
    resumed, resumed_history = run(method, tmp_path / "killed", selector=new_selector(0.3))
    assert_same_weights(resumed, whole)
    assert resumed_history == history


def test_a_run_may_be_killed_again_and_again(tmp_path: Path) -> None:
    whole, _ = run("ppo", tmp_path / "whole")
    for die_at in (2, 3, 7):
        with pytest.raises(Killed):
            run("ppo", tmp_path / "killed", die_at=die_at)
    resumed, _ = run("ppo", tmp_path / "killed")
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_the_same_seed_gives_the_same_weights(method: str, tmp_path: Path) -> None:
    first, _ = run(method, tmp_path / "1", selector=new_selector(0.3), steps=4)
    second, _ = run(method, tmp_path / "2", selector=new_selector(0.3), steps=4)
    assert_same_weights(first, second)


@pytest.mark.parametrize("method", ["sft", *METHODS])
def test_a_batch_in_four_passes_has_the_gradients_of_one_pass(method: str) -> None:
    gradients = []
    for batch_size in (8, 2):
        selector = new_selector()
        rows = list(range(8))
        still = loop.score_pools(selector, DATA.pools[:8], 8, "cpu")
        batch = {"rewards": DATA.rewards[rows], "reference": DATA.reference[rows]}
        generator = torch.Generator().manual_seed(0)
        algorithm, section = ALGORITHMS[method], settings(method)
        rolled = algorithm.rollout(lambda: SelectorOutput(*still), batch, section, generator)  # noqa: B023
        loop._accumulate(
            selector,
            algorithm,
            section,
            DATA.pools[:8],
            rolled,
            torch.tensor(rows),
            batch_size,
            torch.device("cpu"),
        )
        gradients.append({n: p.grad for n, p in selector.named_parameters() if p.grad is not None})
    one, four = gradients
    assert one.keys() == four.keys() and len(one) > 5
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_weights_kept_are_those_of_the_best_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = iter([0.9, 0.3, 0.8, 0.5])  # at the start and at three validations
    seen = []

    def validate(selector: Selector, val: Pools, batch_size: int) -> Stats:
        seen.append(trainable_state(selector))
        return {"reward": next(rewards), "expected_reward": 0.0}

    monkeypatch.setattr(loop, "validate", validate)
    selector, _ = run("sft", tmp_path, steps=6, evaluations=3)
    kept = trainable_state(selector)
    assert all(torch.equal(kept[name], tensor) for name, tensor in seen[2].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in seen[3].items())


def test_an_update_that_says_stop_ends_the_passes_without_a_step(tmp_path: Path) -> None:
    class Stopping:
        calls = 0

        def rollout(self, act: Any, batch: Batch, config: Any, generator: Any) -> Batch:
            return batch

        def loss(
            self, output: SelectorOutput, batch: Batch, config: Any
        ) -> tuple[torch.Tensor, Stats]:
            self.calls += 1
            return log_softmax(output.logits)[:, 0].mean(), {"reward": 0.0, "stop": 1.0}

    stopping, selector = Stopping(), new_selector()
    before = trainable_state(selector)
    train(
        selector,
        stopping,
        settings("ppo"),
        Schedule([[0, 1, 2, 3]], inner_epochs=3, minibatches=1),
        DATA,
        VAL,
        batch_size=4,
        seed=0,
        checkpoint=CheckpointFile("run", tmp_path),
        report=lambda done, total, history: None,
    )
    assert stopping.calls == 1
    assert all(torch.equal(before[n], t) for n, t in trainable_state(selector).items())


def test_steps_are_full_batches_however_few_the_questions_are() -> None:
    batches = steps_of_batches(DATA.pools[:10], 4, 7, seed=0)
    assert [len(batch) for batch in batches] == [4] * 7
    assert [len(batch) for batch in steps_of_batches(DATA.pools[:3], 4, 2, seed=0)] == [3, 3]


def test_the_step_size_warms_up_and_ends_near_a_tenth(tmp_path: Path) -> None:
    _, history = run("sft", tmp_path, steps=20, warmup=0.2, learning_rate=1.0e-3)
    rates = [row["learning_rate"] for row in history.train]
    assert max(rates) == pytest.approx(1.0e-3) and rates.index(max(rates)) == 4
    assert rates[0] == pytest.approx(1.0e-4)
    assert rates[-1] < 1.2e-4

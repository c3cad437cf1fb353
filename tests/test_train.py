"""The training loop on a task that a tiny Llama learns in a few steps."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import nn
from toys import METHODS, Killed, learnable_pools, tiny_config
from transformers import LlamaForCausalLM

from posttrain.core import loop
from posttrain.core.errors import UserError
from posttrain.core.loop import Best, History, Stats, check_finite, evenly, trainable_state
from posttrain.core.methods import load_method
from posttrain.selector import train as selector_train
from posttrain.selector.batch import collate
from posttrain.selector.model import Selector, SelectorOutput, ValuedOutput
from posttrain.selector.policy import Batch, log_softmax
from posttrain.selector.predict import score_pools
from posttrain.selector.train import Run, Schedule, steps_of_batches, train, validate

DATA, VAL = learnable_pools(64, 0), learnable_pools(32, 1)
SELECTOR = METHODS["selector"]


def new_selector(dropout: float = 0.0) -> Selector:
    torch.manual_seed(0)
    config = tiny_config(num_hidden_layers=1, attention_dropout=dropout)
    return Selector(LlamaForCausalLM(config)).train()


def settings(method: str, **changes: Any) -> Any:
    return toys.settings("selector", method, **{"evaluations": 2, "learning_rate": 1e-2, **changes})


def new_run(
    selector: Selector,
    work: Path,
    *,
    batch_size: int = 16,
    die_at: int | None = None,
    evaluate: Callable[[Any], Mapping[str, float]] = lambda selector: validate(selector, VAL, 16),
) -> Run:
    """die_at: the step after which it is killed."""

    def report(done: int, total: int, shown: Stats) -> None:
        if done == die_at:
            raise Killed

    return Run(
        model=selector,
        seed=3,
        work=work,
        evaluate=evaluate,
        report=report,
        data=DATA,
        batch_size=batch_size,
    )


def run(
    method: str,
    work: Path,
    *,
    selector: Selector | None = None,
    steps: int = 10,
    batch_size: int = 16,
    die_at: int | None = None,
    **changes: Any,
) -> tuple[Selector, History]:
    selector = selector or new_selector()
    own = settings(method, **changes)
    passes = getattr(own, "inner_epochs", 1), getattr(own, "minibatches", 1)
    schedule = Schedule(steps_of_batches(DATA.pools, 16, steps, seed=3), *passes)
    started = new_run(selector, work, batch_size=batch_size, die_at=die_at)
    return selector, train(started, load_method("selector", method), own, schedule)


def assert_same_weights(one: Selector, other: Selector) -> None:
    expected = trainable_state(other)
    for name, tensor in trainable_state(one).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("method", SELECTOR)
def test_training_raises_the_reward(method: str, tmp_path: Path) -> None:
    _, history = run(method, tmp_path, steps=40)
    start, *_, end = history.val
    assert start["reward"] < 0.6
    assert end["reward"] > 0.9
    assert end["expected_reward"] > start["expected_reward"] + 0.1


@pytest.mark.parametrize("method", SELECTOR)
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


def test_the_critic_s_states_have_no_gradient_and_no_weights() -> None:
    selector = new_selector()
    output = selector(collate(DATA.pools[:2]))
    assert output.logits.requires_grad and not output.states.requires_grad
    assert not [name for name, _ in selector.named_parameters() if "value" in name]


def test_ppo_s_critic_learns_from_step_to_step_and_other_methods_have_none(tmp_path: Path) -> None:
    """The candidates' rewards are what the policy's states tell apart; it does not change."""
    _, history = run("ppo", tmp_path / "ppo", steps=12, learning_rate=1e-9, kl_coef=0.0)
    first, *later = (row["explained_variance"] for row in history.train)
    assert first == pytest.approx(0.0, abs=1e-6) and any(later)
    assert "explained_variance" not in run("grpo", tmp_path / "grpo", steps=2)[1].train[0]


@pytest.mark.parametrize("method", SELECTOR)
def test_a_batch_in_four_passes_has_the_gradients_of_one_pass(method: str, tmp_path: Path) -> None:
    gradients = []
    for batch_size in (8, 2):
        selector = new_selector()
        rows = list(range(8))
        still = score_pools(selector, DATA.pools[:8], 8, "cpu")
        batch = {"rewards": DATA.rewards[rows], "reference": DATA.reference[rows]}
        generator = torch.Generator().manual_seed(0)
        module, own = load_method("selector", method), settings(method)
        rolled = module.rollout(lambda: ValuedOutput(*still, torch.zeros(8)), batch, own, generator)  # noqa: B023
        selector_train._accumulate(
            new_run(selector, tmp_path, batch_size=batch_size),
            module,
            own,
            DATA.pools[:8],
            rolled,
            torch.tensor(rows),
        )
        gradients.append({n: p.grad for n, p in selector.named_parameters() if p.grad is not None})
    one, four = gradients
    assert one.keys() == four.keys() and len(one) > 5
    for name, gradient in one.items():
        torch.testing.assert_close(four[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [
        ([0.9, 0.3, 0.8, 0.5], 2),  # at the start and at three validations
        ([0.9, 0.8, 0.8, 0.5], 2),
        ([0.9, 0.5, 0.8, 0.8], 3),
        ([0.9, 0.1 + 0.2, 0.2, 0.3], 3),  # equal up to rounding
    ],
)
def test_the_weights_kept_are_the_latest_of_the_best_validations(
    rewards: list[float], kept: int, tmp_path: Path
) -> None:
    """The start is no result of the training, however good it is."""
    seen = []

    def evaluate(selector: Selector) -> Stats:
        seen.append(trainable_state(selector))
        return {"reward": rewards[len(seen) - 1]}

    selector, batches = new_selector(), steps_of_batches(DATA.pools, 16, 6, seed=3)
    started = new_run(selector, tmp_path, evaluate=evaluate)
    own = settings("sft", evaluations=3)
    history = train(started, load_method("selector", "sft"), own, Schedule(batches))
    for number, weights in enumerate(seen):
        same = all(torch.equal(weights[n], t) for n, t in trainable_state(selector).items())
        assert same is (number == kept)
    assert history.best == {"step": 2.0 * kept, "reward": rewards[kept]}


class Stopping:
    calls = 0

    def rollout(self, act: Any, batch: Batch, settings: Any, generator: Any) -> Batch:
        return batch

    def loss(
        self, output: SelectorOutput, batch: Batch, settings: Any
    ) -> tuple[torch.Tensor, Stats]:
        self.calls += 1
        return log_softmax(output.logits)[:, 0].mean(), {"reward": 0.0, "stop": 1.0}


def test_an_update_that_says_stop_ends_the_passes_without_a_step(tmp_path: Path) -> None:
    stopping, selector = Stopping(), new_selector()
    before = trainable_state(selector)
    schedule = Schedule([[0, 1, 2, 3]], inner_epochs=3, minibatches=1)
    train(new_run(selector, tmp_path), stopping, settings("ppo"), schedule)
    assert stopping.calls == 1
    assert all(torch.equal(before[n], t) for n, t in trainable_state(selector).items())


@pytest.mark.parametrize(("name", "value"), [("loss", float("nan")), ("grad_norm", float("inf"))])
def test_a_training_that_diverges_stops_with_one_line(
    name: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the step and the statistic; nothing is validated after it."""

    def take_step(*arguments: Any) -> Stats:
        step = arguments[-1]
        return {"loss": 0.5, "grad_norm": 1.0} | ({name: value} if step == 2 else {})

    monkeypatch.setattr(selector_train, "_take_step", take_step)
    with pytest.raises(UserError) as caught:
        run("sft", tmp_path, steps=4)
    expected = f"step 3: {name} is {value}, so the training has diverged; lower learning_rate"
    assert str(caught.value) == expected
    check_finite({"loss": 0.5}, 1)


@pytest.mark.parametrize("method", SELECTOR)
def test_a_learning_rate_far_too_high_ends_every_method_in_one_line(
    method: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        run(method, tmp_path, learning_rate=1e30)
    assert re.fullmatch(
        r"step [123]: \S+ is (nan|inf|not finite), so the training has diverged; lower learning_rate",
        str(caught.value),
    )


@pytest.mark.parametrize("method", SELECTOR)
def test_a_training_resumes_from_the_checkpoint_before_it_diverged(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What made it diverge is gone then; with another learning rate it would be another training, from its start."""
    whole, expected = run(method, tmp_path / "whole")
    done: list[int] = []

    def take_step(*arguments: Any) -> Stats:
        done.append(arguments[-1])
        stats: Stats = sound(*arguments)
        if len(done) == 8:
            with torch.no_grad():
                arguments[0].model.score.inner.bias.fill_(torch.nan)
        return stats

    sound = selector_train._take_step
    monkeypatch.setattr(selector_train, "_take_step", take_step)
    with pytest.raises(UserError, match=r"^step 8: score\.inner\.bias is not finite, so the"):
        run(method, tmp_path / "run")
    resumed, history = run(method, tmp_path / "run")
    assert done == [*range(8), 7, 8, 9]
    assert_same_weights(resumed, whole)
    assert history == expected


# ------------------------------------------------------------------------------ core.loop, whatever is trained


def two_modules(work: Path, die_at: int | None = None) -> tuple[dict[str, nn.Module], History]:
    """A model and a critic, each with a parameter named `weight`, trained together on noise."""
    torch.manual_seed(0)
    trained = {"model": nn.Linear(3, 2), "value": nn.Linear(2, 1)}
    parameters = [p for module in trained.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)

    def take_step(step: int) -> Stats:
        rows = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        loss = (trained["value"](trained["model"](rows)) - rows[:, :1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    def evaluate(model: nn.Module) -> Stats:
        return {"reward": model(torch.ones(3)).sum().item()}

    def report(done: int, total: int, shown: Stats) -> None:
        if done == die_at:
            raise Killed

    started = loop.Run(model=trained["model"], seed=0, work=work, evaluate=evaluate, report=report)
    own = settings("sft", evaluations=3)
    return trained, loop.train(started, trained, optimizer, own, 9, take_step)


@pytest.mark.parametrize("die_at", [0, 1, 4, 8])
def test_two_modules_resume_to_the_same_bytes(die_at: int, tmp_path: Path) -> None:
    """Weights of both, AdamW's state and the best weights so far are in the checkpoint."""
    whole, history = two_modules(tmp_path / "whole")
    with pytest.raises(Killed):
        two_modules(tmp_path / "killed", die_at)
    resumed, resumed_history = two_modules(tmp_path / "killed")
    assert resumed_history == history and len(history.train) == 9
    for name, module in whole.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(resumed[name].state_dict()[key], tensor), f"{name}/{key}"


def test_a_validation_changes_no_random_number_and_no_mode() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    model[0].eval()

    def evaluate(model: Any) -> Stats:
        assert not model.training
        return {"reward": float(torch.rand(()))}

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Best(model, evaluate, "reward").validate(1)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and model[1].training and not model[0].training


def test_a_validation_without_the_figure_that_decides_is_one_line() -> None:
    best = Best(nn.Linear(1, 1), lambda model: {"accuracy": 1.0}, "reward")
    with pytest.raises(UserError, match=r"has no 'reward', only \['accuracy'\]"):
        best.validate(1)


def test_validations_are_evenly_spaced_and_the_last_step_has_one() -> None:
    assert evenly(10, 2) == {5, 10} and evenly(9, 3) == {3, 6, 9}
    assert evenly(2, 10) == {1, 2}


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

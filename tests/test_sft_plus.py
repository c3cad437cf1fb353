"""SFT+, the control: SFT continued from the start of the RL methods, with the steps, questions and tokens that it states."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.selector_rl import main as selector_rl
from stages.selector_sft import main as selector_sft
from torch.optim.optimizer import register_optimizer_step_post_hook
from toys import (
    COLOUR_QUESTIONS,
    COLOUR_TOKENIZER,
    colour_data,
    colour_llama,
    pool_row,
    same_weights,
    settings,
    train_on_colours,
    write_project,
)
from workspace import set_params

from posttrain.core.cost import READ
from posttrain.core.params import load_params
from posttrain.generator import shared
from posttrain.generator.batches import prompt_batches
from posttrain.generator.data import prompt_completion_rows
from posttrain.selector import train as selector_train
from posttrain.selector.methods import sft, sft_plus
from posttrain.selector.train import steps_of_batches

# ------------------------------------------------------------------------------ generator


def rows_read(model: Any) -> list[tuple[int, ...]]:
    """The rows that the model reads in training passes from now on, without their pads."""
    read: list[tuple[int, ...]] = []

    def note(module: Any, inputs: Any, keywords: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            read.extend(tuple(i for i in row if i) for row in keywords["input_ids"].tolist())

    model.model.register_forward_pre_hook(note, with_kwargs=True)
    return read


@pytest.mark.parametrize(("inner_epochs", "minibatches"), [(1, 1), (2, 2)])
def test_the_generator_reads_the_gold_answers_of_the_questions_that_its_settings_state(
    inner_epochs: int, minibatches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`steps` batches of `prompts_per_step` questions, each `inner_epochs` times, and nothing else."""
    model = colour_llama()
    monkeypatch.setattr(shared, "reads_once", lambda *arguments: False)  # of equal prompts
    read = rows_read(model)
    own = {"prompts_per_step": 4, "inner_epochs": inner_epochs, "minibatches": minibatches}
    history = train_on_colours("sft_plus", tmp_path, model, steps=3, **own)
    rows, _ = prompt_completion_rows(COLOUR_QUESTIONS[:16], COLOUR_TOKENIZER, 32, 8)
    prompts = [row["input_ids"][: row["labels"].count(-100)] for row in rows]
    batches = prompt_batches(prompts, 4, 3, seed=3)
    assert len(history.train) == len(batches) == 3
    passes = [
        sorted(tuple(rows[index]["input_ids"]) for index in batch)
        for batch in batches
        for _ in range(inner_epochs)
    ]
    assert [sorted(read[start : start + 4]) for start in range(0, len(read), 4)] == passes


@pytest.mark.parametrize("minibatches", [1, 2, 4])
def test_a_step_of_the_generator_has_an_optimizer_step_for_each_minibatch(
    minibatches: int, tmp_path: Path
) -> None:
    taken: list[Any] = []
    hook = register_optimizer_step_post_hook(lambda *step: taken.append(step))
    try:
        train_on_colours("sft_plus", tmp_path, colour_llama(), steps=3, minibatches=minibatches)
    finally:
        hook.remove()
    assert len(taken) == 3 * minibatches


def test_the_generator_is_given_the_questions_that_prompts_names(tmp_path: Path) -> None:
    asked: list[str] = []

    def gold_answers(which: str = "all") -> Any:
        asked.append(which)
        return colour_data().gold_answers()

    for prompts in ("all", "mixed"):
        data = colour_data(gold_answers=gold_answers)
        train_on_colours("sft_plus", tmp_path / prompts, colour_llama(), data=data, prompts=prompts)
    assert asked == ["all", "mixed"]


def test_the_first_step_of_the_generator_has_the_loss_of_trl(tmp_path: Path) -> None:
    """One batch of all questions: the mean over its completion tokens, before any weight has moved."""
    rows = colour_data().gold_answers()[:8]
    data = colour_data(gold_answers=lambda which="all": rows)
    ours = train_on_colours(
        "sft_plus", tmp_path / "1", colour_llama(), data=data, prompts_per_step=8
    )
    trl = train_on_colours("sft", tmp_path / "2", colour_llama(), data=data)
    for key in ("loss", "grad_norm"):
        assert ours.train[0][key] == pytest.approx(trl.train[0][key], rel=1e-4)


# ------------------------------------------------------------------------------ selector

SPLITS = {"train": range(64), "val": range(64, 68)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the SFT selector of seed 0, which begins as SFT+ does."""
    rows = {split: [pool_row(n) for n in numbers] for split, numbers in SPLITS.items()}
    folder = write_project(tmp_path_factory.mktemp("selector"), rows)
    changes = {"selector.common.steps": 2, "selector.common.evaluation_questions": 2}
    set_params(folder, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        selector_sft(load_params(), "0")
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_selector_has_the_loss_of_sft() -> None:
    assert sft_plus.loss is sft.loss and sft_plus.rollout is sft.rollout


def test_the_selector_starts_from_sft_and_sees_the_questions_and_steps_that_its_settings_state(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = selector_train.train

    def watched(run: Any, method: Any, own: Any, schedule: Any) -> Any:
        start = {n: t.detach().clone() for n, t in run.model.state_dict().items()}
        seen.append((start, run.model.training, schedule, run.data.pools, run.seed))
        return real(run, method, own, schedule)

    monkeypatch.setattr("posttrain.selector.run.train", watched)
    for method in ("sft_plus", "ppo"):
        selector_rl(load_params(), method, "0")
    (start, training, schedule, pools, seed), (other, frozen, *_) = seen
    assert training and not frozen, "dropout is on as in SFT, and off in RL"
    assert same_weights(start, other)
    head = load_file("models/selector/sft/0/head.safetensors")
    assert head and all(torch.equal(start[name], tensor) for name, tensor in head.items())
    own = settings("selector", "sft_plus")
    assert schedule.batches == steps_of_batches(pools, own.prompts_per_step, 2, seed)
    assert (schedule.inner_epochs, schedule.minibatches) == (own.inner_epochs, own.minibatches)


def test_the_selector_reads_as_many_tokens_as_ppo(project: Path) -> None:
    """Within 10 %, by the count of logs/times.jsonl, at the settings of params.yaml with fewer steps."""
    read = {}
    for method in ("ppo", "sft_plus"):
        READ["tokens"] = 0
        selector_rl(load_params(), method, "0")
        read[method] = READ["tokens"]
    assert read["sft_plus"] == pytest.approx(read["ppo"], rel=0.1)

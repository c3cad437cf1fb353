"""SFT ends at its plateau: by rule, the same after a kill, on its curves, and in a sentence of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_train import DATA, assert_same_weights, new_run, new_selector, settings
from torch import nn
from toys import Killed, colour_llama, frozen_copy, same_weights, train_on_colours

from posttrain.core.curves import write_curves
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, write_json
from posttrain.core.loop import Best, History
from posttrain.core.methods import load_method
from posttrain.report.training import plateau_sentences
from posttrain.selector.model import Selector
from posttrain.selector.train import Schedule, steps_of_batches, train

RISES_TWICE = [0.0, 0.4, 0.6, 0.5, 0.6, 0.9, 0.1]  # the start, then validations


@pytest.mark.parametrize(
    ("rewards", "patience", "plateau"),
    [
        ([0.9], 1, False),
        ([0.9, 0.5], 1, False),  # the start is no validation of the training
        ([0.0, 0.5, 0.4], 1, True),
        ([0.0, 0.5, 0.4], 2, False),
        ([0.0, 0.5, 0.4, 0.5], 2, True),  # as good is not better
        ([0.0, 0.5, 0.4, 0.6], 1, False),
        ([0.0, 0.5, 0.4, 0.3, 0.6], 2, False),
        ([0.0, 0.5, 0.4, 0.3], None, None),
    ],
)
def test_a_plateau_is_patience_validations_without_a_better_one(
    rewards: Sequence[float], patience: int | None, plateau: bool | None
) -> None:
    best = Best(nn.Linear(1, 1), lambda model: {"reward": 0.0}, "reward", patience)
    best.val = [{"step": float(step), "reward": reward} for step, reward in enumerate(rewards)]
    assert best.plateau is plateau


class Scripted:
    """Gives a model the next of these rewards for each step at which it validates."""

    def __init__(self, rewards: Sequence[float], already: int = 0) -> None:
        self.rewards, self.given = rewards, already

    def __call__(self, model: Any) -> dict[str, float]:
        self.given += 1
        reward = self.rewards[self.given - 1]
        return {"reward": reward, "execution_accuracy": reward}


def of_selector(
    work: Path, patience: int | None, die_at: int | None = None, already: int = 0
) -> tuple[Selector, History]:
    """12 steps of SFT with dropout and a validation every second one."""
    selector = new_selector(0.3)
    started = new_run(selector, work, die_at=die_at, evaluate=Scripted(RISES_TWICE, already))
    schedule = Schedule(steps_of_batches(DATA.pools, 16, 12, seed=3), patience=patience)
    own = settings("sft", evaluations=6)
    return selector, train(started, load_method("selector", "sft"), own, schedule)


@pytest.mark.parametrize(
    ("patience", "steps", "best", "plateau"),
    [(None, 12, 10, None), (1, 6, 4, True), (2, 8, 8, True), (3, 12, 10, False)],
)
def test_the_selector_ends_at_its_plateau_and_not_before(
    patience: int | None, steps: int, best: int, plateau: bool | None, tmp_path: Path
) -> None:
    """With patience 3 the validation at step 10 comes just in time. Of ties the latest weights are kept."""
    _, history = of_selector(tmp_path, patience)
    assert history.ending == {"steps": steps, "best_step": best, "plateau": plateau}
    assert [row["step"] for row in history.val] == list(range(0, steps + 1, 2))
    whole = of_selector(tmp_path / "whole", None)[1]
    assert history.train == whole.train[:steps], "the learning rate is that of all steps"


@pytest.mark.parametrize(("die_at", "validated"), [(1, 1), (5, 3), (8, 5)])
def test_a_selector_killed_before_or_at_its_last_validation_ends_where_it_would_have(
    die_at: int, validated: int, tmp_path: Path
) -> None:
    """A checkpoint is written at each of these steps, that of step 8 after the validation that ends the training."""
    whole, history = of_selector(tmp_path / "whole", 2)
    with pytest.raises(Killed):
        of_selector(tmp_path / "killed", 2, die_at)
    resumed, resumed_history = of_selector(tmp_path / "killed", 2, already=validated)
    assert_same_weights(resumed, whole)
    assert resumed_history == history


def of_generator(
    work: Path, patience: int | None, die_at: int | None = None, already: int = 0
) -> tuple[Any, History]:
    """8 steps of SFT with dropout and a validation after each."""
    model = colour_llama(lora=True)
    watched = Scripted([*RISES_TWICE, 0.2, 0.3], already)
    own = {"evaluate": watched, "epochs": 4, "evaluations": 8, "patience": patience}
    return model, train_on_colours("sft", work, model, die_at=die_at, **own)


def test_the_generator_ends_at_its_plateau_and_not_before(tmp_path: Path) -> None:
    whole = of_generator(tmp_path / "whole", None)[1]
    assert whole.ending == {"steps": 8, "best_step": 5, "plateau": None}
    for patience, steps, best in ((1, 3, 2), (2, 4, 4), (3, 8, 5)):
        _, history = of_generator(tmp_path / str(patience), patience)
        assert history.ending == {"steps": steps, "best_step": best, "plateau": True}
        assert history.train == whole.train[:steps], "the learning rate is that of all steps"
        assert [row["step"] for row in history.val] == list(range(steps + 1))


@pytest.mark.parametrize(("die_at", "validated"), [(2, 2), (4, 4)])
def test_a_generator_killed_before_or_at_its_last_validation_ends_where_it_would_have(
    die_at: int, validated: int, tmp_path: Path
) -> None:
    """It dies before the checkpoint of the step, and goes on from that of the step before."""
    whole, history = of_generator(tmp_path / "whole", 2)
    with pytest.raises(Killed):
        of_generator(tmp_path / "killed", 2, die_at)
    resumed, resumed_history = of_generator(tmp_path / "killed", 2, already=validated)
    assert same_weights(frozen_copy(resumed), frozen_copy(whole))
    assert resumed_history == history


# ------------------------------------------------------------------------------ curves and report


def write(folder: Path, seed: int, values: Sequence[float], key: str, plateau: bool | None) -> None:
    """Curves as a training writes them, one validation every 100 steps."""
    val = [{"step": 100.0 * place, key: value} for place, value in enumerate(values)]
    train = [{"step": row["step"], "loss": 1.0} for row in val[1:]]
    write_curves(folder / "sft" / str(seed), History(train, val, key, plateau))


def test_the_curves_say_where_the_training_stopped(tmp_path: Path) -> None:
    write(tmp_path, 0, [0.0, 0.5, 0.7, 0.6], "reward", True)
    told = read_json(tmp_path / "sft/0/training.json")
    assert told == {"steps": 300, "best_step": 200, "plateau": True}
    assert (tmp_path / "sft/0/val/reward.tsv").is_file()


def test_a_plateau_is_told_with_its_step(tmp_path: Path) -> None:
    write(tmp_path, 0, [0.1, 0.5, 0.7, 0.6], "reward", True)
    write(tmp_path, 1, [0.1, 0.5, 0.6, 0.65, 0.6], "reward", True)
    assert plateau_sentences(tmp_path, [0]) == [
        "SFT had stopped improving when RL began: its best validation was at step 200 of 300 (mean reward at the last "
        "validations 50.0, 70.0 and 60.0\u00a0%)."
    ]
    assert "at step 200 of 300 and 300 of 400 (" in plateau_sentences(tmp_path, [0, 1])[0]


def test_a_training_that_used_up_its_epochs_is_told_with_its_last_validations(
    tmp_path: Path,
) -> None:
    """Of the seeds that did, and by what decides which weights are kept."""
    write(tmp_path, 0, [0.1, 0.5, 0.7, 0.6], "execution_accuracy", True)
    write(tmp_path, 1, [0.1, 0.4, 0.5, 0.6, 0.65], "execution_accuracy", False)
    assert plateau_sentences(tmp_path, [0, 1]) == [
        "SFT used up its epochs before its validation stopped rising (accuracy at the last validations 50.0, 60.0 and "
        "65.0\u00a0% with seed 1), so RL began from a training that may still have been improving, and a gain of RL may "
        "be one that more SFT would have brought: compare with SFT+, which had more."
    ]


def test_a_training_without_patience_is_told_as_untested(tmp_path: Path) -> None:
    write(tmp_path, 0, [0.1, 0.5], "execution_accuracy", None)
    (told,) = plateau_sentences(tmp_path, [0])
    assert told.startswith(
        "SFT took its epochs without a test of whether it still improved (accuracy at the last validations 50.0"
    )


def test_a_file_that_does_not_tell_the_ending_is_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "sft/0/training.json", {"steps": 3})
    with pytest.raises(UserError, match=r"sft/0/training\.json: no steps, best_step and plateau"):
        plateau_sentences(tmp_path, [0])

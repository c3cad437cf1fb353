"""Curves during training: accelerate's trackers, off by default, outside everything that is hashed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_train import DATA, new_run, new_selector, settings
from toys import PARAMS, ROOT

from posttrain.core import curves
from posttrain.core.errors import UserError
from posttrain.core.schema import read_yaml
from posttrain.selector.methods import rloo
from posttrain.selector.train import Schedule, steps_of_batches, train


def test_nothing_is_tracked_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert PARAMS.tracking == "none"
    progress = curves.Progress("selector/ppo/0", PARAMS.tracking)
    progress(1, 2, {"loss": 1.0})
    progress.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_statistic_of_a_step_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    progress = curves.Progress("selector/ppo/0", "tensorboard")
    for step in (1, 2):
        progress(step, 2, {"loss": 1.0 / step, "grad_norm": 3.0, "val_reward": 0.5})
    progress.tracker.writer.flush()
    read = EventAccumulator(str(tmp_path / "runs/selector/ppo/0")).Reload()
    progress.close()
    assert {"loss", "grad_norm", "val_reward"} <= set(read.Tags()["scalars"])
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


def test_a_training_shows_its_curves_while_it_runs_and_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    schedule = Schedule(steps_of_batches(DATA.pools, 16, 4, seed=3))
    histories = []
    for tracking in ("none", "tensorboard"):
        progress = curves.Progress("selector/rloo/0", tracking)
        run = replace(new_run(new_selector(), tmp_path / tracking), report=progress)
        histories.append(train(run, rloo, settings("rloo", evaluations=1), schedule))
        progress.close()
    read = EventAccumulator(str(tmp_path / "runs/selector/rloo/0")).Reload()
    shown = {event.step: event.value for event in read.Scalars("loss")}
    assert shown == pytest.approx({row["step"]: row["loss"] for row in histories[1].train})
    assert read.Scalars("val_reward")[-1].value == pytest.approx(histories[1].best["reward"])
    assert histories[0] == histories[1]


def test_a_tracker_without_its_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="tracking: wandb needs a package: pip install wandb"):
        curves.Progress("generator/grpo/0", "wandb")


def test_the_page_tracks_a_run_in_which_something_trains() -> None:
    """No training depends on `tracking`, so a run that sets nothing else would show no curve."""
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert [name for name, one in stages.items() if "tracking" in one.get("params", ())] == []
    page = (ROOT / "docs/experiments.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^dvc exp run .*-S tracking=.*$", page, re.M)
    assert command.count("-S ") > 1

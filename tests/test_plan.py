"""A stage's first line says where the run of DVC stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from toys import PARAMS
from workspace import TINY, copy_project, must, run

from posttrain.core import plan
from posttrain.core.plan import duration, last_seconds, seconds_left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (250, "4 min 10 s"), (599.6, "10 min"),
     (3540, "59 min"), (3590, "1 h 0 min"), (12000, "3 h 20 min"), (200000, "55 h 33 min")],
)  # fmt: skip
def test_a_duration_has_the_units_that_matter(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def noted(stage: str, *arguments: str, seconds: float, dataset: str = "sample") -> dict[str, Any]:
    return {"stage": stage, "arguments": list(arguments), "dataset": dataset, "model": "pocket",
            "seconds": seconds}  # fmt: skip


def test_the_time_left_is_that_of_the_last_run_of_each_stage() -> None:
    lines = [
        noted("fetch", seconds=9.0),
        noted("fetch", seconds=2.0),
        noted("fetch", seconds=500.0, dataset="finqa"),
        noted("selector_rl", "ppo", "0", seconds=30.0),
        noted("selector_rl", "grpo", "0", seconds=50.0),
    ]
    last = last_seconds(lines, "sample", "pocket")
    assert last == {"fetch": 2.0, "selector_rl@ppo-0": 30.0, "selector_rl@grpo-0": 50.0}
    assert seconds_left([], ["fetch", "selector_rl@ppo-0"], last, 0.0) == 32.0
    assert seconds_left([], ["selector_rl@rloo-1"], last, 0.0) == 40.0  # as others of its kind
    assert seconds_left([], ["fetch", "rerank@0"], last, 0.0) is None
    assert seconds_left(["fetch"], ["selector_rl@ppo-0", "selector_rl@grpo-0"], last, 5.0) == 86.0
    assert seconds_left(["fetch"], ["selector_rl@ppo-0"], last, 1.0) == 30.0


def test_a_stage_that_is_run_by_hand_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    plan.announce(PARAMS)
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


WHERE = re.compile(r"^(\S+): stage (\d+) of (\d+), .* so far(, about .* left)?$", re.M)


@pytest.mark.slow
def test_a_queued_experiment_whose_targets_are_unknown_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "fetch")
    monkeypatch.setattr(plan, "_ask", lambda name, arguments: [name])
    for arguments, said in ((["repro"], True), (["exp", "exec-run", "--infofile", "x"], False)):
        started = plan.Run(1, 0.0, arguments)
        monkeypatch.setattr(plan, "dvc_process", lambda started=started: started)
        plan.announce(PARAMS)
        assert bool(capsys.readouterr().out) is said


def test_each_stage_of_a_run_says_its_place_among_those_that_run(tmp_path: Path) -> None:
    """From nothing; with nothing to do; after an override; with broken notes."""
    project = copy_project(tmp_path / "project", TINY)
    data = ["fetch", "audit", "examples", "pools"]

    def places(*command: str) -> list[tuple[str, str, str, bool]]:
        done = run(project, *command)
        return [(a, b, c, bool(d)) for a, b, c, d in WHERE.findall(done.stdout)]

    must(project, "dvc", "repro", "base")  # DVC may run it before the others or among them
    of_four = [(name, str(place), "4", False) for place, name in enumerate(data, 1)]
    assert places("dvc", "repro", "pools") == of_four
    assert places("dvc", "repro", "pools") == []
    changed = places("dvc", "exp", "run", "-S", "pools.count=4", "pools", "audit")
    assert changed == [("pools", "1", "1", True)]

    # Notes that a kill has cut off end no stage.
    for name in ("plan.json", "times.jsonl"):
        path = project / "logs" / name
        path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    assert places("dvc", "exp", "run", "-S", "pools.count=5", "pools") == [
        ("pools", "1", "1", False)
    ]


@pytest.mark.slow
def test_the_stages_ahead_are_those_that_dvc_runs(tmp_path: Path) -> None:
    """Asked by hand, in a project in which nothing has run."""
    project = copy_project(tmp_path / "project", TINY)

    def ahead(*words: str) -> list[str]:
        return list(json.loads(must(project, "python", "-m", "posttrain.core.plan", *words)))

    data = [stage for stage in ahead("fetch", "repro", "-v", "pools") if stage != "base"]
    assert data == ["fetch", "audit", "examples", "pools"]
    assert ahead("examples", "exp", "run", "-S", "pools=pools", "pools") == ["examples", "pools"]
    whole = [stage for stage in ahead("fetch", "repro") if stage != "base"]
    listed = must(project, "dvc", "stage", "list", "--name-only").split()
    assert {"code", "inputs", *whole} == set(listed) - {"base"} and whole[0] == "fetch"
    assert whole.index("selector_rl@ppo-0") < whole.index("compare@selector") < len(whole)

"""The benchmarks of overhead and of a GPU run in small, and their tables are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import gpu, overhead
from benchmarks.gpu import Figure, Stopwatch, row
from benchmarks.overhead import lines

from posttrain.core import loop
from posttrain.generator import trl


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 3)
    monkeypatch.setattr(overhead, "STEPS", 3)
    for module in (loop, trl):
        monkeypatch.setattr(module, "SAVES", 1)


def test_the_ratios_stand_at_the_end_by_hand() -> None:
    found = {"bare decode": 0.01, "decode": 0.012, "decode with LoRA": 0.02}
    found |= {"bare train": 0.1, "train": 0.13, "PPO": 0.15}
    assert lines(found)[-4:] == [
        "decode 1.20x",
        "decode with LoRA 2.00x",
        "train 1.30x",
        "PPO 1.50x",
    ]


def test_the_overhead_is_measured_of_every_kind() -> None:
    found = overhead.measure(layers=1, width=48, rank=2, tokens=4, rounds=1)
    assert len(found) == 8 and all(value > 0 for value in found.values())


def test_a_row_of_the_gpu_table_by_hand() -> None:
    own, other = Figure(3000.0, 0.02, 1.5), Figure(1500.0, 0.04, None)
    assert row("sft", [own, other]) == "| sft | 3,000 | 20.0 | 1.5 | 1,500 | 40.0 | – | 2.0x |"
    assert row("ppo", [own, None]) == "| ppo | 3,000 | 20.0 | 1.5 | – | – | – | – |"


def test_a_step_is_the_median_without_the_first() -> None:
    assert Stopwatch([0.0, 9.0, 10.0, 13.0, 15.0]).seconds == 2.0


def test_every_part_runs_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--small", "--out", str(tmp_path / "told.json")])
    told: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    methods = {f"generator {name}" for name in ("sft", "grpo", "dpo", "ppo")}
    assert told.keys() > methods | {"selector sft", "selector grpo", "decoding, 4 in flight"}
    assert all(told[name][0]["tokens"] > 0 for name in methods)
    assert told["generator grpo"][1]["tokens"] > 0 and told["generator ppo"][1] is None
    assert 0 < told["log-probability of a token, mean difference"] < 0.1
    assert told["loss in bfloat16"] == pytest.approx(told["loss in float32"], rel=0.01)
    assert "the time is up" not in capsys.readouterr().out


def test_parts_beyond_the_time_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--small", "--minutes", "0"])
    assert capsys.readouterr().out.count("not measured, the time is up") == 8

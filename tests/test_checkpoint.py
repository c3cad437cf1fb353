"""Checkpoints come back exactly, and only to the process that trains their run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import ROOT

from posttrain.core.checkpoint import CheckpointFile, claim, forget, release, work_folder
from posttrain.core.errors import UserError


def test_tensors_and_state_come_back_exactly(tmp_path: Path) -> None:
    checkpoint = CheckpointFile("run", tmp_path)
    tensors = {
        "a/b": torch.randn(3, 2),
        "step": torch.tensor(7.0),
        "half": torch.ones(2).bfloat16(),
    }
    state = {"done": 3, "rows": [{"loss": 0.1 + 0.2}]}
    checkpoint.save(tensors, state)
    loaded = CheckpointFile("run", tmp_path).load()
    assert loaded is not None and loaded.state == state
    assert loaded.tensors.keys() == tensors.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in tensors.items())


def test_a_transposed_tensor_is_saved_as_it_reads(tmp_path: Path) -> None:
    checkpoint = CheckpointFile("run", tmp_path)
    matrix = torch.arange(6.0).view(2, 3)
    checkpoint.save({"x": matrix.T}, {})
    loaded = checkpoint.load()
    assert loaded is not None and torch.equal(loaded.tensors["x"], matrix.T)


def test_another_run_finds_nothing(tmp_path: Path) -> None:
    CheckpointFile("run", tmp_path).save({"x": torch.ones(1)}, {})
    assert CheckpointFile("other", tmp_path).load() is None


def test_a_removed_checkpoint_is_gone(tmp_path: Path) -> None:
    checkpoint = CheckpointFile("run", tmp_path)
    checkpoint.remove()
    checkpoint.save({"x": torch.ones(1)}, {})
    checkpoint.remove()
    assert checkpoint.load() is None


HOLD = """
import sys
from pathlib import Path
from posttrain.core.checkpoint import claim
claim("run", Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_run_is_trained_by_one_process_until_that_ends(tmp_path: Path) -> None:
    """Until the first process ends, here by a kill, a second one is told which one trains."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught:
            claim("run", tmp_path)
        assert str(caught.value) == (
            f"another process (pid {other.pid}) is training this run ({tmp_path / 'run'}); "
            "wait for it, or end it"
        )
    finally:
        other.kill()
        other.communicate()
    claim("run", tmp_path)
    assert (tmp_path / "run.pid").read_text() == str(os.getpid())
    release("run", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_work_folder_is_claimed_and_goes_when_its_run_is_forgotten(tmp_path: Path) -> None:
    for digest in ("one", "two"):
        work = work_folder(digest, tmp_path)
        CheckpointFile("run", work).save({"x": torch.ones(1)}, {})
    forget(tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"two", "two.lock", "two.pid"}
    release("two", tmp_path)


def test_a_run_that_ended_in_an_error_can_be_claimed_again(tmp_path: Path) -> None:
    claim("run", tmp_path)
    claim("run", tmp_path)
    release("run", tmp_path)


def test_the_processes_of_one_launch_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim("run", tmp_path)
    monkeypatch.setenv("RANK", "1")
    claim("run", tmp_path)
    monkeypatch.setenv("RANK", "0")
    release("run", tmp_path)


def test_a_claim_clears_away_what_a_kill_left_half_written_of_its_run(tmp_path: Path) -> None:
    for digest in ("one", "two"):
        CheckpointFile("run", tmp_path / digest).save({"x": torch.ones(1)}, {})
        (tmp_path / digest / ".run.safetensors.k1").write_bytes(b"half")
    claim("one", tmp_path)
    release("one", tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")}
    assert left == {"one/run.safetensors", "two/run.safetensors", "two/.run.safetensors.k1"}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 100])
def test_a_broken_checkpoint_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    checkpoint = CheckpointFile("run", tmp_path)
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None


def test_a_truncated_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = CheckpointFile("run", tmp_path)
    checkpoint.save({"x": torch.ones(100)}, {"done": 1})
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-50])
    assert checkpoint.load() is None

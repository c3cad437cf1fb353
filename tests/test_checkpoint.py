"""Checkpoints come back exactly, and only to the run that wrote them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from workspace import ROOT

from posttrain.core.checkpoint import CheckpointFile, claim, release
from posttrain.core.errors import UserError
from posttrain.core.manifest import build_manifest, digest, hash_code, hash_path


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
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_is_trained_by_one_process_until_that_ends(tmp_path: Path) -> None:
    """However it ends: here it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run.lock")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process trains the same run"):
            claim("run", tmp_path)
    finally:
        other.kill()
        other.communicate()
    claim("run", tmp_path)
    release("run", tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_a_claim_clears_away_what_a_kill_left_half_written(tmp_path: Path) -> None:
    CheckpointFile("run", tmp_path).save({"x": torch.ones(1)}, {})
    (tmp_path / ".run.safetensors.k1").write_bytes(b"half")
    (tmp_path / ".other.safetensors.k2").write_bytes(b"half")
    claim("run", tmp_path)
    release("run", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.safetensors", ".other.safetensors.k2"}


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


def test_the_digest_follows_params_data_code_and_seed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("1")
    first = digest(build_manifest("s", {"lr": 0.1}, [data], seed=0))
    assert digest(build_manifest("s", {"lr": 0.1}, [data], seed=0)) == first
    assert digest(build_manifest("s", {"lr": 0.2}, [data], seed=0)) != first
    assert digest(build_manifest("s", {"lr": 0.1}, [data], seed=1)) != first
    (data / "a").write_text("2")
    assert digest(build_manifest("s", {"lr": 0.1}, [data], seed=0)) != first


def test_a_manifest_names_nothing_of_this_machine() -> None:
    manifest = build_manifest("s", {}, ["params.yaml"])
    assert str(ROOT) not in repr(manifest) and str(Path.home()) not in repr(manifest)
    assert manifest["code"] == hash_code()


def test_a_folders_hash_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = hash_path(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert hash_path(tmp_path) != before

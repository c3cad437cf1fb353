"""Checkpoints of a training run, kept outside DVC's outputs and reused only by the same run.

A run has a work folder, `.checkpoints/<digest of its manifest>`. A checkpoint of ours is one file in it: tensors, with
a JSON object in the header. It is written under a temporary name and renamed, so a kill leaves the previous checkpoint
intact. A process claims its run, because two processes on the same run would delete each other's checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_write

ROOT = Path(".checkpoints")
_claims: dict[Path, FileLock] = {}


class Checkpoint(NamedTuple):
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class CheckpointFile:
    """A named checkpoint in a work folder."""

    def __init__(self, name: str, work: Path) -> None:
        self.path = work / f"{name}.safetensors"

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; `state` must be serialisable as JSON."""
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(contiguous, metadata={"state": json.dumps(state)})
        with atomic_write(self.path, "wb") as file:
            file.write(content)

    def load(self) -> Checkpoint | None:
        """The checkpoint, or None if it is missing or unreadable."""
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                state = json.loads(file.metadata()["state"])
        except (FileNotFoundError, SafetensorError):
            return None
        return Checkpoint(tensors, state)

    def remove(self) -> None:
        """Delete the checkpoint."""
        self.path.unlink(missing_ok=True)


def work_folder(digest: str, root: Path = ROOT) -> Path:
    """Claim a run for this process (`claim`) and return the folder of its checkpoints."""
    claim(digest, root)
    return root / digest


def forget(work: Path) -> None:
    """Remove a run's work folder and release the claim, once its result is in place."""
    if os.environ.get("RANK", "0") == "0":
        shutil.rmtree(work, ignore_errors=True)
        release(work.name, work.parent)


def claim(digest: str, root: Path = ROOT) -> None:
    """Keep other processes from training this run until `release` or the end of this process, even by a kill.

    Raises `UserError` naming the other process if one holds the run. The processes of one distributed launch count as one.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    root.mkdir(parents=True, exist_ok=True)
    path = root.absolute() / f"{digest}.lock"
    owner = path.with_suffix(".pid")
    lock = _claims.setdefault(path, FileLock(path, blocking=False))  # a lock ends with its object
    try:
        lock.acquire()
    except Timeout as error:
        number = owner.read_text(encoding="utf-8") if owner.is_file() else "unknown"
        raise UserError(
            f"another process (pid {number}) is training this run ({root / digest}); wait for it, or end it"
        ) from error
    owner.write_text(str(os.getpid()), encoding="utf-8")
    for leftover in (root / digest).glob(".*"):  # temporary files that a kill left behind
        leftover.unlink()


def release(digest: str, root: Path = ROOT) -> None:
    """Release the claim, once the run's result is in place."""
    path = root.absolute() / f"{digest}.lock"
    if path in _claims:
        path.with_suffix(".pid").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        _claims.pop(path).release(force=True)

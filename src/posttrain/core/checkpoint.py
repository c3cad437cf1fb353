"""Checkpoints of a running training, outside DVC's outputs, found again only by the same run.

One file per run, `.checkpoints/<digest of the manifest>.safetensors`: tensors, and a JSON object in
its header. Written under a temporary name and renamed, so a kill leaves the previous checkpoint
whole. A process claims its run, as two that train the same would take each other's checkpoints away.
"""

from __future__ import annotations

import json
import os
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
    """The checkpoint of the run whose manifest has this digest."""

    def __init__(self, digest: str, root: Path = ROOT) -> None:
        self.path = root / f"{digest}.safetensors"

    def save(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint. `state` is anything JSON can hold."""
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(contiguous, metadata={"state": json.dumps(state)})
        with atomic_write(self.path, "wb") as file:
            file.write(content)

    def load(self) -> Checkpoint | None:
        """The checkpoint, or None when there is none that can be read."""
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                state = json.loads(file.metadata()["state"])
        except (FileNotFoundError, SafetensorError):
            return None
        return Checkpoint(tensors, state)

    def remove(self) -> None:
        """Forget the run, once its result is in place."""
        self.path.unlink(missing_ok=True)


def claim(digest: str, root: Path = ROOT) -> None:
    """Let no other process train this run, until `release` or the end of this process, a kill included.

    `UserError` when another process does. The processes of one distributed launch are one run.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    root.mkdir(parents=True, exist_ok=True)
    path = root.absolute() / f"{digest}.lock"
    lock = _claims.setdefault(path, FileLock(path, blocking=False))  # it ends with its object
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process trains the same run ({root / digest}); wait for it, or end it"
        ) from error
    for leftover in root.glob(f".{digest}.*"):  # of a checkpoint that was being written at a kill
        leftover.unlink()


def release(digest: str, root: Path = ROOT) -> None:
    """End the claim, once the run's result is in place."""
    path = root.absolute() / f"{digest}.lock"
    if path in _claims:
        path.unlink(missing_ok=True)
        _claims.pop(path).release(force=True)

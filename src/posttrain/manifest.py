"""What a result was made from: stage, params, data, code and package versions, as one JSON object.

The manifest lies beside each model. Its digest is also the key of the checkpoints, so that a run
resumes only from a run of the same params, data and code. It holds no time, host or path outside
the project.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.files import sha256_file

PACKAGES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def build_manifest(
    stage: str, params: Mapping[str, Any], inputs: Sequence[str | Path], **extra: Any
) -> dict[str, Any]:
    """Describe a run at its start. `inputs` are files or folders, named relative to the project.

    Call it before the work: DVC hashes dependencies when a stage has ended, so only the stage
    itself knows which code and data it started from.
    """
    return {
        "stage": stage,
        "params": dict(params),
        "inputs": {str(path): hash_path(Path(path)) for path in inputs},
        "code": hash_code(),
        "packages": {name: version(name) for name in PACKAGES},
        **extra,
    }


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of all files below a folder."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            total.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


def hash_code() -> str:
    """SHA-256 over the project's modules that are imported now, and the script that runs them."""
    total = hashlib.sha256()
    for name, file in sorted(imported_modules().items()):
        total.update(f"{name}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


def imported_modules() -> dict[str, Path]:
    """The project's own imported modules and the running script, by name."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name == "posttrain" or name.startswith("posttrain.")):
            found[name] = Path(file)
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script and Path(script).parent.name == "stages":
        found["stage"] = Path(script)
    return found

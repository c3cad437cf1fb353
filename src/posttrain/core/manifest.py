"""What a result was made from: stage, params, data, code and package versions, as one JSON object.

The manifest lies beside each model and each set of predictions. Its digest is also the key of the
checkpoints, so that a run resumes only from a run of the same params, data and code. It holds no
time, host or path outside the project.

DVC hashes what a stage read when the stage has ended. So a result would be recorded as made from what was
edited while it was made: `write_manifest` refuses that, and `check_code` a result of code that is not there now.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import read_json, sha256_file, write_json
from posttrain.core.params import load_params

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = PACKAGE.parents[1]
OWN = ("posttrain", "pretrain", "__main__")
MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def build_manifest(
    stage: str, params: Mapping[str, Any], inputs: Sequence[str | Path], **extra: Any
) -> dict[str, Any]:
    """Describe a run at its start, before the work.

    params: by section, as `Params.sections` gives them. inputs: files or folders, named relative to the project; one
    that has a manifest must be of the code that is there now.
    """
    for path in inputs:
        if (Path(path) / MANIFEST).is_file():
            check_code(Path(path))
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


def hash_code() -> dict[str, str]:
    """SHA-256 of each file of the project that is imported now, and of the script that runs."""
    modules = [(name.partition(".")[0], module) for name, module in list(sys.modules.items())]
    files = [getattr(module, "__file__", None) for name, module in modules if name in OWN]
    paths = sorted({Path(file).resolve() for file in files if file})
    return {
        path.relative_to(PROJECT).as_posix(): sha256_file(path)
        for path in paths
        if path.parent in (PROJECT / "stages", PROJECT / "pretrain")
        or (path.is_relative_to(PACKAGE) and _has_code(path))
    }


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Put the manifest beside the result; `UserError` if what it names has changed since it was built.

    Call it before the result is put in place.
    """
    now = load_params().sections(*manifest["params"])
    changed = [f"params.yaml: {name}" for name in now if now[name] != manifest["params"][name]]
    changed += [name for name, sha in manifest["code"].items() if _hash_now(name) != sha]
    changed += [name for name, sha in manifest["inputs"].items() if hash_path(Path(name)) != sha]
    if changed:
        raise UserError(
            f"{changed[0]} was changed while this ran, so the result is not kept; run it again, or undo "
            "the change first (a training then goes on from its last checkpoint)"
        )
    write_json(directory / MANIFEST, dict(manifest))


def check_code(directory: Path) -> None:
    """`UserError` when the result in `directory` was made by other code than there is now."""
    manifest = read_json(directory / MANIFEST)
    try:
        files = manifest["code"].items()
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{directory / MANIFEST}: names no code; run dvc repro") from error
    for name, sha in files:
        if _hash_now(name) != sha:
            raise UserError(
                f"{directory} was made by another {name}; run dvc repro (with -f if it finds nothing to do)"
            )


def _hash_now(name: str) -> str | None:
    file = PROJECT / name
    return sha256_file(file) if file.is_file() else None


@cache
def _has_code(file: Path) -> bool:
    """Whether there is more than a docstring in it, which nothing depends on."""
    return file.name != "__init__.py" or len(ast.parse(file.read_bytes()).body) > 1

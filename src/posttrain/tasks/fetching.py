"""Fetching a data set into one folder, in its original layout: generated, copied, or downloaded and checked.

A download takes each file at the pinned commit, and accepts it only if its git blob id is the one in params.yaml. A
download is a `.part` file, named by the expected blob id, in the folder `DOWNLOADS`; the next one continues a broken one
and takes a whole one as it is; a wrong file is deleted. The output folder appears only when all its files are right.
"""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from posttrain.core.errors import UserError
from posttrain.core.files import PathLike, atomic_directory, atomic_write, git_blob_id
from posttrain.core.inputs import DOWNLOADS, named_folder
from posttrain.core.params import GeneratedDataset, Params

HUB = "https://raw.githubusercontent.com"
TIMEOUT = 30.0

_CHUNK = 1 << 16
_COMPLETE_AND_MORE = 416


def fetch_dataset(
    params: Params,
    directory: Path,
    paths: Sequence[str],
    *,
    generate: Callable[[GeneratedDataset, Path], None],
    check: Callable[[Path], Iterable[object]],
) -> None:
    """Put the data set that `params` chooses into `directory`.

    paths: of its files in the repository; they keep their names. generate: writes the files of a generated data set.
    check: yields the rows of a file, and raises `UserError` if one is not whole.
    """
    dataset, key = params.selected_dataset, f"datasets.{params.dataset}"
    if isinstance(dataset, GeneratedDataset):
        generate(dataset, directory)
    elif dataset.path is not None:
        fetch_path(directory, dataset.path, paths, check, key)
    else:
        fetch_hub(directory, dataset.repository, dataset.commit, dataset.blobs, paths, key)


def fetch_files(params: Params, directory: Path) -> None:
    """`fetch` for a task that reads stored files as they are: those named in `blobs` of the data set's entry.

    They are copied from the folder `path` (all of its files if `blobs` is empty), or downloaded from the root of the
    repository. `UserError` for a generated data set.
    """
    dataset, key = params.selected_dataset, f"datasets.{params.dataset}"
    if isinstance(dataset, GeneratedDataset):
        raise UserError(f"{key}.source: generated, but task {dataset.task} reads files")
    names = [*dataset.blobs]
    if dataset.path is None:
        fetch_hub(directory, dataset.repository, dataset.commit, dataset.blobs, names, key)
        return
    folder = named_folder(dataset.path, f"{key}.path")
    if not names:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    fetch_path(directory, folder, names, lambda file: (), key)


def fetch_path(
    output: Path,
    source: PathLike,
    paths: Sequence[str],
    check: Callable[[Path], Iterable[object]],
    key: str,
) -> None:
    """Copy the files of `source` into `output`, after checking that each is whole."""
    names = [Path(path).name for path in paths]
    folder = named_folder(source, f"{key}.path")
    for name in names:
        if not (folder / name).is_file():
            raise UserError(f"{key}.path: {folder} has no file {name}")
        for _ in check(folder / name):
            pass
    with atomic_directory(output) as directory:
        for name in names:
            shutil.copyfile(folder / name, directory / name)


def fetch_hub(
    output: Path,
    repository: str,
    commit: str,
    blobs: Mapping[str, str],
    paths: Sequence[str],
    key: str,
    scratch: Path = DOWNLOADS,
    base_url: str = HUB,
) -> None:
    """Download the files at `paths` of `repository` at `commit`.

    They stay in `scratch`, so that a data set whose entry changes, in the size of a part, needs no network again.

    blobs: maps file names to their git blob ids. key: the data set's key in params.yaml, for messages.
    """
    names = {Path(path).name: path for path in paths}
    missing = [name for name in names if name not in blobs]
    if missing:
        raise UserError(f"{key}.blobs: no git blob id for {missing[0]}")
    parts = {name: scratch / f"{blobs[name]}.part" for name in names}
    for name, part in parts.items():
        url = f"{base_url}/{repository}/{commit}/{names[name]}"
        try:
            download(url, part, blobs[name])
        except Unreachable as error:
            advice = f"to use a copy on disk set {key}.path to its folder"
            raise UserError(f"{error}; {advice}") from error
        except OSError as error:
            raise UserError(f"cannot write {part}: {error.strerror or error}") from error
    with atomic_directory(output) as directory:
        for name, part in parts.items():
            with part.open("rb") as source, atomic_write(directory / name, "wb") as target:
                shutil.copyfileobj(source, target)


class Unreachable(UserError):
    """The server cannot be reached or refuses the file."""


def download(url: str, part: Path, blob: str) -> None:
    """Download `url` into `part`, continuing what is there; the git blob id must be `blob`.

    `UserError` if the server cannot be reached, refuses, breaks off (`part` is kept), or serves other content (`part`
    is deleted). A continued download with other content is started over once, as its beginning may be another file's.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    continued = part.exists() and part.stat().st_size > 0
    if continued and git_blob_id(part) == blob:
        return
    _transfer(url, part)
    found = git_blob_id(part)
    if found != blob and continued:
        part.unlink()
        _transfer(url, part)
        found = git_blob_id(part)
    if found != blob:
        part.unlink()
        raise UserError(f"{url}: checksum mismatch: git blob id {found}, expected {blob}")


def _transfer(url: str, part: Path) -> None:
    """Append the rest of the file to `part`, or replace it if the server sends the whole file."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _COMPLETE_AND_MORE and have:
            return
        raise Unreachable(f"{url}: the server answers {error.code} {error.reason}") from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", None) or error
        host = urlsplit(url).netloc
        raise Unreachable(f"{host} cannot be reached ({reason})") from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and _starts_at(response, have)
        if response.status == http.HTTPStatus.PARTIAL_CONTENT and not resumed:
            raise UserError(f"{url}: the server sent another range than the one asked for")
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length and length.isdigit() else None
        with (
            part.open("ab" if resumed else "wb") as file,
            tqdm(
                desc=url.rsplit("/", 1)[-1],
                initial=have if resumed else 0,
                total=total,
                unit="B",
                unit_scale=True,
            ) as progress,
        ):
            while chunk := _read(response, url, part):
                file.write(chunk)
                progress.update(len(chunk))
    received = part.stat().st_size
    if total is not None and received < total:
        raise UserError(_broken(url, part, f"{received} of {total} bytes"))


def _read(response: http.client.HTTPResponse, url: str, part: Path) -> bytes:
    try:
        return response.read(_CHUNK)
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(_broken(url, part, type(error).__name__)) from error


def _starts_at(response: http.client.HTTPResponse, offset: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _broken(url: str, part: Path, how: str) -> str:
    return f"{url}: the download broke off ({how}); run again to continue {part}"

"""Reading files, and writing them so that a reader never sees half of one.

Everything is written under a temporary name in the target's directory and renamed when complete, so a killed process or
a full disk leaves the previous version in place.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from posttrain.core.errors import UserError

PathLike = str | os.PathLike[str]

_BLOCK = 1 << 16  # characters
_DECODER = json.JSONDecoder()
_DELIMITER = re.compile(r"\s*([\[,\]])\s*")


@contextmanager
def atomic_write(path: PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    temporary = Path(name)
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(descriptor, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: PathLike) -> Iterator[Path]:
    """Yield an empty directory that replaces `path` when the block ends without an error."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        # A single dot, even inside another temporary directory, so that `_remove_leftovers` finds it.
        prefix = f".{target.name.removeprefix('.')}."
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if target.exists():  # set aside first: a kill during its removal would leave half of it
            previous = temporary.with_name(f"{temporary.name}.previous")
            target.rename(previous)
            temporary.rename(target)
            shutil.rmtree(previous)
        else:
            temporary.rename(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    except SafetensorError as error:  # raised by safetensors when the disk is full
        raise UserError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def temporary_file() -> Iterator[IO[bytes]]:
    """A nameless file for data that does not fit in memory, deleted when the block ends."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        where = f"a temporary file in {tempfile.gettempdir()}"
        raise UserError(f"cannot write {where}: {error.strerror or error}") from error


def read_json(path: PathLike) -> Any:
    """Parse a JSON file; `UserError` names the file, line and column of a syntax error."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise UserError(f"{where}: not valid JSON: {error.msg}") from error


def iterate_json_array(path: PathLike) -> Iterator[Any]:
    """The items of a JSON file that is one list, with one item in memory at a time.

    Raises `UserError` if the file is not a list, or like `read_json`, but only after the items before the syntax error.
    """
    with _readable(path), Path(path).open(encoding="utf-8") as file:
        text, place, before = file.read(_BLOCK), 0, "["
        while True:
            try:
                item, place = _decode_item(text, place, before)
            except ValueError:  # no more items, or the next one is not yet read to its end
                text, place = text[place:], 0
                if not (more := file.read(max(_BLOCK, len(text)))):
                    break
                text += more
            else:
                before = ","
                yield item
    if not re.fullmatch(r"\s*\]\s*" if before == "," else r"\s*\[\s*\]\s*", text):
        value = read_json(path)  # raises the error that names the line and column
        raise UserError(f"{path}: expected a list of rows, found {type(value).__name__}")


def _decode_item(text: str, place: int, before: str) -> tuple[Any, int]:
    """The item after the delimiter `before`, and where it ends; `ValueError` unless the next delimiter is there too."""
    start = _DELIMITER.match(text, place)
    if start is None or start[1] != before:
        raise ValueError("no item")
    item, end = _DECODER.raw_decode(text, start.end())
    if _DELIMITER.match(text, end) is None:
        raise ValueError("may go on")
    return item, end


def write_json(path: PathLike, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys; `ValueError` for NaN and infinities."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def write_json_array(path: PathLike, items: Iterable[Any]) -> None:
    """Write the same bytes as `write_json` of a list of the items, with one item in memory at a time."""
    with atomic_write(path) as file:
        before = "[\n  "
        for item in items:
            text = json.dumps(item, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
            file.write(before + text.replace("\n", "\n  "))
            before = ",\n  "
        file.write("[]\n" if before.startswith("[") else "\n]\n")


def read_jsonl(path: PathLike) -> list[dict[str, Any]]:
    """Parse one JSON object per line; `UserError` names the file and line of the first that is not one."""
    return list(iterate_jsonl(path))


def iterate_jsonl(path: PathLike) -> Iterator[dict[str, Any]]:
    """The rows of `read_jsonl`, with one row in memory at a time."""
    with _readable(path), Path(path).open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line == "\n":
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not valid JSON: {error.msg}") from error
            if not isinstance(row, dict):
                found = type(row).__name__
                raise UserError(f"{path}:{number}: expected a JSON object, found {found}")
            yield row


@dataclass(frozen=True, slots=True)
class JsonLines:
    """The rows of a JSONL file, read again by `iterate_jsonl` at each iteration."""

    path: PathLike

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iterate_jsonl(self.path)


def write_jsonl(path: PathLike, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line; `ValueError` for NaN and infinities."""
    with atomic_write(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: PathLike) -> str:
    """The file's text; `UserError` if it is missing, unreadable or not UTF-8."""
    with _readable(path):
        return Path(path).read_text(encoding="utf-8")


@contextmanager
def _readable(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {_undecodable(path)})") from error


def _undecodable(path: PathLike) -> int:
    """Position of the file's first byte that is not UTF-8; the decoder's error counts from the start of a block."""
    try:
        Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def sha256_file(path: PathLike) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(path: PathLike) -> str:
    """The file's object id in Git: SHA-1 of `blob <size>\\0<content>`."""
    digest = hashlib.sha1(f"blob {os.path.getsize(path)}\0".encode(), usedforsecurity=False)
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _remove_leftovers(target: Path) -> None:
    """Remove the temporary directories of killed runs. Only under DVC, which lets nobody else write, and in one process."""
    if "DVC_STAGE" in os.environ and "RANK" not in os.environ:
        for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
            shutil.rmtree(path)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current

"""Reading files, and writing them so that a reader never sees half of one.

Everything is written under a temporary name in the target's directory and renamed when complete, so a killed process or
a full disk leaves the previous version in place.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from posttrain.core.errors import UserError
from posttrain.core.progress import shown

PathLike = str | os.PathLike[str]

MADE = ("data", "metrics", "models", "plots")  # folders that the stages write
DEEPEST = 100  # levels of lists and objects in a row

_BLOCK = 1 << 16  # characters
_DELIMITER = re.compile(r"\s*([\[,\]])\s*")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # a pair of them in JSON is one character in Python
_ENCODING = "utf-8-sig"  # UTF-8, with or without a byte order mark
# First bytes of files that are mistaken for text.
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


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


class _UnusableError(Exception):
    """Valid JSON that is not read: more digits than Python reads, or a key that stands twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise _UnusableError(f"an object has the key {twice!r} twice")
    return found


def _integer(digits: str) -> int:
    limit = sys.get_int_max_str_digits()
    if limit and len(digits.lstrip("-")) > limit:
        raise _UnusableError(f"a number has more than {limit} digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


@contextmanager
def _usable(where: PathLike) -> Iterator[None]:
    """`UserError("<where>: ...")` for JSON that is valid and not read."""
    try:
        yield
    except RecursionError as error:
        raise UserError(f"{where}: lists or objects are nested too deeply") from error
    except _UnusableError as error:
        raise UserError(f"{where}: {error}") from error


def read_json(path: PathLike) -> Any:
    """Parse a JSON file; `UserError` names the file, line and column of a syntax error."""
    text = read_text(path)
    try:
        with _usable(path):
            return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise UserError(f"{where}: not valid JSON: {error.msg}") from error


def iterate_json_array(path: PathLike) -> Iterator[Any]:
    """The items of a JSON file that is one list, with one item in memory at a time.

    Raises `UserError` if the file is not a list, or like `read_json`, but only after the items before the syntax error.
    """
    with _readable(path), Path(path).open(encoding=_ENCODING) as file:
        text, place, before, index = file.read(_BLOCK), 0, "[", 0
        while True:
            try:
                with _usable(f"{path}: row {index}"):
                    item, place = _decode_item(text, place, before)
            except ValueError:  # no more items, or the next one is not yet read to its end
                text, place = text[place:], 0
                if not (more := file.read(max(_BLOCK, len(text)))):
                    break
                text += more
            else:
                before = ","
                yield item
                index += 1
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
    """Parse one JSON object per line, blank lines aside; `UserError` names file and line of the first that is not one."""
    return list(iterate_jsonl(path))


def iterate_jsonl(path: PathLike) -> Iterator[dict[str, Any]]:
    """The rows of `read_jsonl`, with one row in memory at a time."""
    with _readable(path), Path(path).open(encoding=_ENCODING) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                with _usable(f"{path}:{number}"):
                    row = _DECODER.decode(line)
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
    """Write one JSON object per line; `ValueError` for NaN and infinities, `UserError` for text that UTF-8 cannot hold."""
    with atomic_write(path) as file:
        for number, row in enumerate(shown(rows, Path(path).name)):
            try:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            except UnicodeEncodeError as error:
                found = unwritable(row)
                raise UserError(
                    f"cannot write {path}: row {number} ({row.get('id')!r}): {found}"
                ) from error


def unwritable(value: Any) -> str | None:
    """The first part of a parsed JSON value that cannot be written as JSON in UTF-8, and why; None if all can.

    Such are lone surrogates (`"\\ud83d"` is valid JSON, and half of a character), numbers that no float holds, NaN, and
    what is nested deeper than `DEEPEST`, as the depth that Python reads and writes depends on the caller's own.
    """
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    seen: set[int] = set()  # an alias in YAML makes two places one object
    while waiting:
        place, part, depth = waiting.pop()
        if isinstance(part, str) and (lone := _SURROGATE.search(part)):
            return f"{place or 'the text'} holds {lone[0]!r}, half of a surrogate pair"
        if isinstance(part, float) and not math.isfinite(part):
            return f"{place or 'the number'} is {part}"
        if isinstance(part, int) and part.bit_length() > sys.float_info.max_exp:
            return f"{place or 'the number'} is larger than {sys.float_info.max:.2g}"
        items: list[tuple[Any, Any]] = []
        if isinstance(part, dict):
            items = [*part.items()]
        elif isinstance(part, list | tuple):
            items = [*enumerate(part)]
        if items and depth >= DEEPEST:
            return f"{place.partition('.')[0]} is nested deeper than {DEEPEST} levels"
        if id(part) in seen:
            continue
        if items:
            seen.add(id(part))
        before = f"{place}." if place else ""
        for key, item in reversed(items):
            waiting.append((f"{before}{escape_surrogates(str(key))}", item, depth + 1))
            if isinstance(part, dict):
                waiting.append((f"a key{' of ' if place else ''}{place}", str(key), depth))
    return None


def escape_surrogates(text: str) -> str:
    """The text with lone surrogates as `\\ud83d`, so that it can be written."""
    return text.encode(errors="backslashreplace").decode()


def read_text(path: PathLike) -> str:
    """The file's text, without a byte order mark; `UserError` if it is missing, unreadable or not UTF-8."""
    with _readable(path):
        return Path(path).read_text(encoding=_ENCODING)


@contextmanager
def _readable(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = absent(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"cannot read {path}: {error.strerror}{advice}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}{_undecodable(path)}") from error


def absent(path: PathLike) -> str:
    """What to do about a missing file, as the end of a message: for params.yaml, and for what stages make."""
    if Path(path) == Path("params.yaml"):
        return "; run this in the project's folder"
    made = Path(path).parts[:1] in [(folder,) for folder in MADE]
    return "; dvc repro makes what stages write, dvc pull brings it" if made else ""


def _undecodable(path: PathLike) -> str:
    """Line and byte of the file's first character that is not UTF-8, or its true format, for a message.

    The decoder's own error counts from the start of a block.
    """
    content = Path(path).read_bytes()
    for start, name in _OTHER_FORMATS.items():
        if content.startswith(start):
            return f": not UTF-8 text but {name}; convert or unpack it"
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = len(content[: error.start + 1].splitlines())
        return f":{line}: not UTF-8 text (byte {error.start} of the file)"
    return ": not UTF-8 text"


def sha256_file(path: PathLike) -> str:
    """Hexadecimal SHA-256 of the file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of all files in a folder."""
    if path.is_file():
        return sha256_file(path)
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            total.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return total.hexdigest()


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

"""A reader never sees half a file, and a broken one is named."""

from __future__ import annotations

import errno
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace import ROOT, environment

from posttrain.core import progress
from posttrain.core.errors import UserError
from posttrain.core.files import (
    atomic_directory,
    atomic_write,
    git_blob_id,
    iterate_json_array,
    read_json,
    read_jsonl,
    read_text,
    sha256_file,
    temporary_file,
    unwritable,
    write_json,
    write_json_array,
    write_jsonl,
)

# A lone surrogate is no text: UTF-8 cannot hold it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as file:
        file.write("first")
        file.flush()
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write("second")
        raise ZeroDivisionError
    assert path.read_text() == "first"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_directory(target) as directory:
        (directory / "old").write_text("1")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), atomic_directory(target) as directory:
        (directory / "new").write_text("2")
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["old"]
    with atomic_directory(target) as directory:
        (directory / "new").write_text("2")
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stage_that_dvc_runs_removes_what_a_kill_left_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand two may write the same output at once, so nothing is removed."""
    left, other = tmp_path / ".out.k1", tmp_path / ".out2.k2"
    for path in (left, other):
        (path / "model").mkdir(parents=True)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    with atomic_directory(tmp_path / "out"):
        pass
    assert left.exists()
    monkeypatch.setenv("DVC_STAGE", "train")
    with atomic_directory(tmp_path / "out"):
        pass
    assert not left.exists() and other.exists()


def test_a_directory_within_one_that_is_being_written_is_replaced_in_it(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "out") as outer:
        with atomic_directory(outer) as inner:
            assert inner.name.startswith(".out.")  # which the next run of a killed stage removes
            (inner / "model").write_text("1")
        (outer / "manifest").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model", "manifest"}


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_json(tmp_path / "ours", 1)
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(st.lists(st.dictionaries(TEXTS, st.integers() | TEXTS)))
def test_jsonl_reads_back(rows: list[dict[str, int | str]]) -> None:
    """Line separators inside a string, such as U+2028, too."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        write_jsonl(path, rows)
        assert read_jsonl(path) == rows


@given(st.lists(st.integers() | st.lists(TEXTS) | st.dictionaries(TEXTS, TEXTS)), st.booleans())
def test_a_json_list_reads_the_same_item_by_item(items: list[Any], indented: bool) -> None:
    """Wherever the blocks end that are read; here each is one character longer than the last."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("posttrain.core.files._BLOCK", 1)
        path = Path(directory) / "rows.json"
        path.write_text(f" {json.dumps(items, indent=2 if indented else None)}\n")
        assert [*iterate_json_array(path)] == items == read_json(path)


@given(st.lists(st.integers() | st.lists(TEXTS) | st.dictionaries(TEXTS, st.lists(TEXTS))))
def test_a_json_list_written_item_by_item_has_the_same_bytes(items: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        whole, single = Path(directory) / "whole.json", Path(directory) / "single.json"
        write_json(whole, items)
        write_json_array(single, iter(items))
        assert single.read_bytes() == whole.read_bytes()


def test_items_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([*range(100_000)])[:-100])
    items = iterate_json_array(path)
    assert [next(items) for _ in range(1000)] == [*range(1000)]
    with pytest.raises(UserError, match="not valid JSON"):
        list(items)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"a": 1},\n {"a": 2, "b"},\n {"a": 3}]', "a.json:2:14: not valid JSON"),
        ("[1,\n 2\n 3]", "a.json:3:2: not valid JSON"),
        ("[1,\n]", "a.json:2:1: not valid JSON"),
        ("[1] 2", "a.json:1:5: not valid JSON"),
        ("[1, 2", "a.json:1:6: not valid JSON"),
        ("", "a.json:1:1: not valid JSON"),
        ('{"a": [1]}', "a.json: expected a list of rows, found dict"),
        (f'["{"é" * 70_000}", "\udcff"]', "a.json:1: not UTF-8 text (byte 140006 of the file)"),
        ('[1,\n"\udcff"]', "a.json:2: not UTF-8 text (byte 5 of the file)"),
        ('[1, {"a": 1, "a": 2}]', "a.json: row 1: an object has the key 'a' twice"),
        (f"[1, {'[' * 100_000}", "a.json: row 1: lists or objects are nested too deeply"),
        (f"[1, {'9' * 200_000}]", "a.json: row 1: a number has more than 4300 digits"),
        (f"[1, -{'9' * 200_000}", "a.json: row 1: a number has more than 4300 digits"),
    ],
)
def test_what_is_broken_in_a_json_list_is_named_by_its_place(
    text: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        list(iterate_json_array(path))
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")


def test_json_is_sorted_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": [2.5]})
    assert path.read_text() == '{\n  "a": [\n    2.5\n  ],\n  "b": 1\n}\n'
    for write, value in ((write_json, {"a": float("nan")}), (write_jsonl, [{"a": float("inf")}])):
        with pytest.raises(ValueError, match="Out of range"):
            write(path, value)  # type: ignore[operator]
    assert json.loads(path.read_text())["b"] == 1


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'{"a": 1,\n "b": ', "a.json:2:7: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n{"a": ', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: expected a JSON object, found list"),
        ("a.jsonl", b'{"a": 1},\n', "a.jsonl:1: not valid JSON"),
        ("a.jsonl", b'{"a": "\xff"}', "a.jsonl:1: not UTF-8 text (byte 7 of the file)"),
        ("a.jsonl", b'{"a": 1}\r{"a": "\xe9"}', "a.jsonl:2: not UTF-8 text (byte 16"),
        ("a.jsonl", '{"a": "é'.encode()[:-1], "a.jsonl:1: not UTF-8 text (byte 7"),
        ("a.jsonl", b'{"a": "\xed\xa0\x80"}', "a.jsonl:1: not UTF-8 text (byte 7"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}', "a.jsonl:2: an object has the key 'a' twice"),
        ("a.jsonl", b'{"a": [{"b": 1, "b": 1}]}', "a.jsonl:1: an object has the key 'b' twice"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, "a.jsonl:1: lists or objects are nested"),
        ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "a.jsonl:1: a number has more than 4300"),
        ("a.jsonl", gzip.compress(b'{"a": 1}', mtime=0), "a.jsonl: not UTF-8 text but gzip; "),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "a.jsonl: not UTF-8 text but UTF-16; "),
        ("a.json", gzip.compress(b"[]", mtime=0), "a.json: not UTF-8 text but gzip; "),
        ("a.json", b'{"a": 1, "a": 1}', "a.json: an object has the key 'a' twice"),
        ("a.json", b"[" * 100_000, "a.json: lists or objects are nested too deeply"),
        ("a.json", b"9" * 5000, "a.json: a number has more than 4300 digits"),
    ],
)
def test_what_is_broken_is_named(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        (read_json if name.endswith(".json") else read_jsonl)(path)
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")


BLANK = ["", " ", "\t", "\r", "\x0b", "\x0c", "\x85", "\xa0", "\u2028", "  \t "]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_jsonl_has_lines_of_any_kind_and_blank_ones(mark: str, end: str, tmp_path: Path) -> None:
    """A byte order mark is left out, and what ends no line stands in a text as it is."""
    texts = ["a\u2028b", "\x85\u2029", "\ufeff"]
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    path = tmp_path / "rows.jsonl"
    path.write_bytes((mark + end.join([*BLANK, rows[0], *BLANK, *rows[1:], *BLANK])).encode())
    assert [row["text"] for row in read_jsonl(path)] == texts
    path.write_bytes((mark + end + json.dumps(texts).replace(",", f",{end}")).encode())
    assert read_json(path) == [*iterate_json_array(path)] == texts


def test_files_of_blank_lines_have_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for content in ("", "\ufeff", "\n \n\t"):
        path.write_text(content, encoding="utf-8")
        assert read_jsonl(path) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": ["x", {"b": "y\ud83dz"}]}, "a.1.b holds '\\ud83d', half of a surrogate pair"),
        ({"a": {"\udcff": 1}}, "a key of a holds '\\udcff', half of a surrogate pair"),
        ("\ude00\ud83d", "the text holds '\\ude00', half of a surrogate pair"),
        ({"a": [float("nan")]}, "a.0 is nan"),
        ({"a": float("-inf")}, "a is -inf"),
        ({"a": 10**400}, "a is larger than 1.8e+308"),
        ({"a": json.loads("[" * 150 + "]" * 150)}, "a is nested deeper than 100 levels"),
        ({"a": ["\U0001f600", "\0", "\ufffe", 2**1023, None, True], "": 1.5}, None),
    ],
)
def test_what_cannot_be_written_is_found_with_its_place(value: Any, expected: str | None) -> None:
    assert unwritable(value) == expected


def test_a_text_that_is_none_is_not_written(tmp_path: Path) -> None:
    """It names the row, and the file keeps its content."""
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"id": "old"}])
    with pytest.raises(UserError) as caught:
        write_jsonl(path, [{"id": "a"}, {"id": "b", "text": "\ud800"}])
    assert str(caught.value) == (
        f"cannot write {path}: row 1 ('b'): text holds '\\ud800', half of a surrogate pair"
    )
    assert read_jsonl(path) == [{"id": "old"}]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_missing_file_and_an_unwritable_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file"):
        read_json(tmp_path / "none.json")
    monkeypatch.chdir(tmp_path)
    for name, advice in (
        ("params.yaml", r"No such file or directory; run this in the project's folder$"),
        ("data/pools/none.jsonl", "; dvc repro makes what stages write, dvc pull brings it$"),
        ("none.txt", "No such file or directory$"),
    ):
        with pytest.raises(UserError, match=advice):
            read_text(name)
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"cannot write .*data/x\.json: "):
        write_json(tmp_path / "data" / "x.json", 1)
    with (
        pytest.raises(UserError, match=r"cannot write .*data/x: "),
        atomic_directory(tmp_path / "data/x"),
    ):
        pass


WRITE_ON_A_FULL_DISK = """
import resource, sys
from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, atomic_write, write_json
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
if sys.argv[1] == "file":
    def write():
        write_json("value.json", "x" * 5000)
elif sys.argv[1] == "text":
    def write():
        with atomic_directory("value.json") as directory:
            (directory / "text").write_text("x" * 5000)
else:
    import torch
    from safetensors.torch import save_file
    def write():
        with atomic_directory("value.json") as directory:
            save_file({"x": torch.zeros(5000)}, directory / "x.safetensors")
try:
    write()
except UserError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "text", "tensors"])
def test_a_full_disk_is_one_line_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """A limit on file size makes a write fail like a full disk."""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", WRITE_ON_A_FULL_DISK, kind],
        cwd=tmp_path,
        env=environment(ROOT),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot write value.json: ") and done.stdout.count("\n") == 1
    assert "too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_that_does_not_fit_is_one_line_with_its_folder() -> None:
    with (
        pytest.raises(
            UserError, match=rf"temporary file in {tempfile.gettempdir()}: No space left"
        ),
        temporary_file(),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_hashes_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    # echo hello | git hash-object --stdin; echo hello | sha256sum
    assert git_blob_id(path) == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert sha256_file(path).startswith(
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    )


def test_rows_that_take_long_are_counted_on_the_way_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"row": number} for number in range(3)]
    write_jsonl(tmp_path / "train.jsonl", iter(rows))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "DELAY", 0.0)
    write_jsonl(tmp_path / "slow.jsonl", iter(rows))
    assert "slow.jsonl: 3 rows" in capsys.readouterr().err
    assert (tmp_path / "slow.jsonl").read_bytes() == (tmp_path / "train.jsonl").read_bytes()

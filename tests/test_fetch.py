"""Fetching: generated, copied, and downloaded from a small server on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from workspace import ROOT

from posttrain.core.errors import UserError
from posttrain.core.files import git_blob_id
from posttrain.core.params import load_params
from posttrain.tasks.fetching import download, fetch_files, fetch_hub, fetch_path
from posttrain.tasks.finqa.fetch import PATHS, fetch_generated
from posttrain.tasks.finqa.load import SPLIT_FILES, iterate_split, load_split

BODY = bytes(range(256)) * 2000
NAMES = list(SPLIT_FILES.values())
KEY = "datasets.finqa"


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes). It hangs up after `cut` bytes of a response, and ignores Range if `ranges` is off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = 0
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = len(body) if self.server.cut is None else start + self.server.cut
        self.wfile.write(body[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def blob_of(content: bytes, folder: Path) -> str:
    path = folder / "whole"
    path.write_bytes(content)
    return git_blob_id(path)


@pytest.fixture
def blob(tmp_path: Path) -> str:
    return blob_of(BODY, tmp_path)


def test_a_download_is_the_servers_bytes(server, tmp_path, blob) -> None:
    server.files["/f"] = BODY
    download(f"{server.url}/f", tmp_path / "deep" / "f.part", blob)
    assert (tmp_path / "deep" / "f.part").read_bytes() == BODY


def test_a_broken_download_is_continued_where_it_stopped(server, tmp_path, blob) -> None:
    server.files["/f"] = BODY
    server.cut = 300_000
    part = tmp_path / "f.part"
    with pytest.raises(UserError, match=r"broke off .* run again to continue"):
        download(f"{server.url}/f", part, blob)
    assert part.stat().st_size == 300_000
    server.cut = None
    download(f"{server.url}/f", part, blob)
    assert part.read_bytes() == BODY
    assert server.asked == [None, "bytes=300000-"]


def test_a_server_that_ignores_ranges_starts_the_file_over(server, tmp_path, blob) -> None:
    server.files["/f"] = BODY
    server.ranges = False
    part = tmp_path / "f.part"
    part.write_bytes(BODY[:1000])
    download(f"{server.url}/f", part, blob)
    assert part.read_bytes() == BODY


@pytest.mark.parametrize("left", [b"another file's beginning", BODY + b"and more"])
def test_a_wrong_leftover_costs_one_restart(server, tmp_path, blob, left: bytes) -> None:
    server.files["/f"] = BODY
    part = tmp_path / "f.part"
    part.write_bytes(left)
    download(f"{server.url}/f", part, blob)
    assert part.read_bytes() == BODY


def test_a_complete_leftover_is_not_downloaded_again(server, tmp_path, blob) -> None:
    part = tmp_path / "f.part"
    part.write_bytes(BODY)
    download(f"{server.url}/f", part, blob)
    assert server.asked == []


def test_a_checksum_mismatch_is_one_line_and_leaves_nothing(server, tmp_path, blob) -> None:
    server.files["/f"] = BODY[:-1] + b"x"
    part = tmp_path / "f.part"
    with pytest.raises(UserError, match=f"checksum mismatch.*expected {blob}"):
        download(f"{server.url}/f", part, blob)
    assert not part.exists()


def hub(server: Server, folder: Path, names: list[str] = NAMES) -> dict[str, str]:
    """Put the split files on the server; returns their blob ids."""
    blobs = {}
    for name in names:
        content = json.dumps([name] * 1000).encode()
        server.files[f"/me/FinQA/abc/dataset/{name}"] = content
        blobs[name] = blob_of(content, folder)
    return blobs


def fetch_from(server: Server, folder: Path, blobs: dict[str, str]) -> None:
    scratch = folder / "scratch"
    fetch_hub(folder / "out", "me/FinQA", "abc", blobs, PATHS, KEY, scratch, server.url)


def test_the_hub_fills_the_folder(server, tmp_path) -> None:
    fetch_from(server, tmp_path, hub(server, tmp_path))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(NAMES)


def test_files_are_downloaded_once(server, tmp_path) -> None:
    """Also when the size of a part has changed, before which DVC removes the folder."""
    blobs = hub(server, tmp_path)
    fetch_from(server, tmp_path, blobs)
    whole = {name: (tmp_path / "out" / name).read_bytes() for name in NAMES}
    shutil.rmtree(tmp_path / "out")
    server.files.clear()
    fetch_from(server, tmp_path, blobs)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in NAMES} == whole


def test_one_bad_file_leaves_no_output_and_keeps_the_good_ones(server, tmp_path) -> None:
    blobs = hub(server, tmp_path)
    server.files[f"/me/FinQA/abc/dataset/{NAMES[2]}"] += b" "
    with pytest.raises(UserError, match=f"{NAMES[2]}: checksum mismatch"):
        fetch_from(server, tmp_path, blobs)
    assert not (tmp_path / "out").exists()
    hub(server, tmp_path)
    server.asked.clear()
    fetch_from(server, tmp_path, blobs)
    assert len(server.asked) == 1


def test_a_missing_file_on_the_hub_names_it_and_the_way_out(server, tmp_path) -> None:
    blobs = hub(server, tmp_path)
    server.files.clear()
    with pytest.raises(UserError, match=r"train\.json: .* 404 .*datasets\.finqa\.path"):
        fetch_from(server, tmp_path, blobs)


def test_an_unreachable_hub_names_the_host_and_the_way_out(tmp_path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    blobs = dict.fromkeys(NAMES, "0" * 40)
    with pytest.raises(UserError) as caught:
        url = f"http://127.0.0.1:{port}"
        fetch_hub(tmp_path / "out", "a/b", "c", blobs, PATHS, KEY, tmp_path, url)
    message = str(caught.value)
    assert f"127.0.0.1:{port} cannot be reached" in message
    assert "datasets.finqa.path" in message
    assert "\n" not in message


def test_a_blob_id_is_needed_for_each_file(tmp_path) -> None:
    with pytest.raises(UserError, match=r"blobs: no git blob id for train\.json"):
        fetch_hub(tmp_path / "out", "a/b", "c", {}, PATHS, KEY, tmp_path, "http://127.0.0.1:9")


def test_generated_files_have_the_original_layout(tmp_path) -> None:
    fetch_generated(tmp_path / "out", seed=0, sizes={"train": 12, "val": 5, "test": 7})
    rows = {split: load_split(tmp_path / "out" / name) for split, name in SPLIT_FILES.items()}
    assert {split: len(split_rows) for split, split_rows in rows.items()} == {
        "train": 12,
        "val": 5,
        "test": 7,
    }


def test_a_path_is_copied_byte_for_byte(tmp_path) -> None:
    fetch_generated(tmp_path / "in", seed=0, sizes={"train": 3, "val": 3, "test": 3})
    fetch_path(tmp_path / "out", tmp_path / "in", PATHS, iterate_split, KEY)
    for name in NAMES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


def test_a_bad_path_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match=r"datasets\.finqa\.path: .*nowhere is not a folder"):
        fetch_path(tmp_path / "out", tmp_path / "nowhere", PATHS, iterate_split, KEY)
    with pytest.raises(UserError, match=r"has no file train\.json"):
        fetch_path(tmp_path / "out", tmp_path, PATHS, iterate_split, KEY)
    fetch_generated(tmp_path / "in", seed=0, sizes={"train": 3, "val": 3, "test": 3})
    (tmp_path / "in" / "test.json").write_text('[{"id": "x"')
    with pytest.raises(UserError, match=r"test\.json:1:\d+: not valid JSON"):
        fetch_path(tmp_path / "out", tmp_path / "in", PATHS, iterate_split, KEY)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        fetch_generated(tmp_path / "file" / "out", seed=0, sizes={"train": 2, "val": 2, "test": 2})


def test_a_tasks_own_files_are_copied_as_they_are(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    (tmp_path / "in").mkdir()
    for name in ("train.csv", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(BODY)

    def copied(**changes: object) -> list[str]:
        stored = params.datasets["gsm8k"].model_copy(
            update={"path": str(tmp_path / "in")} | changes
        )
        chosen = params.model_copy(
            update={"dataset": "own", "datasets": {**params.datasets, "own": stored}}
        )
        fetch_files(chosen, tmp_path / "out")
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    assert copied(blobs={}) == ["notes.txt", "train.csv"]
    assert copied(blobs={"train.csv": "0" * 40}) == ["train.csv"]
    with pytest.raises(UserError, match=r"datasets\.own\.path: .* has no file test.csv"):
        copied(blobs={"test.csv": "0" * 40})
    generated = params.model_copy(update={"dataset": "sample"})
    with pytest.raises(UserError, match=r"datasets\.sample\.source: generated, but"):
        fetch_files(generated, tmp_path / "out")

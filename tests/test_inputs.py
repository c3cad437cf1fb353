"""What params.yaml names outside the pipeline is looked at, and what stands on it is made again when it changes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from workspace import copy_project, must, run, set_params

from posttrain.core import inputs
from posttrain.core.errors import UserError
from posttrain.core.files import sha256_file
from posttrain.core.inputs import HASHES, data_files, hash_files, model_files, named_folder

SMALL = {"datasets.sample.train": 40, "datasets.sample.val": 10, "datasets.sample.test": 10}
CHAIN = {"fetch", "audit", "examples"}
LONG_AGO = 10**18  # nanoseconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside the working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("a.json", "sub/b.json", ".hidden", ".git/config"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("one")
    return tmp_path / "data"


def test_hidden_files_do_not_count_and_links_are_followed_once(folder: Path) -> None:
    assert [*data_files(folder)] == ["a.json", "sub/b.json"]
    (folder / "loop").symlink_to(folder)
    (folder / "away").symlink_to("nowhere")
    (folder.parent / "other").mkdir()
    (folder.parent / "other/c.json").write_text("one")
    (folder / "linked").symlink_to(folder.parent / "other")
    (folder.parent / "link").symlink_to(folder)
    for path in (folder, folder.parent / "link", Path("../data")):
        assert [*data_files(path)] == ["a.json", "linked/c.json", "sub/b.json"]


def test_the_project_is_no_part_of_the_folder_that_it_lies_in(folder: Path) -> None:
    Path("mine.json").write_text("one")
    assert [*data_files(folder.parent)] == ["data/a.json", "data/sub/b.json"]
    assert [*data_files(Path())] == ["mine.json"]


def test_of_a_model_what_transformers_reads_counts(folder: Path) -> None:
    for name in ("model.safetensors", "chat_template.jinja", "README.md", "optimizer.pt"):
        (folder / name).write_text("one")
    assert [*model_files(folder)] == ["a.json", "chat_template.jinja", "model.safetensors"]


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(inputs, "sha256_file", counted)
    monkeypatch.setattr(inputs, "_RECENT", 0)
    files = data_files(folder)
    first = hash_files(files)
    assert first == {name: sha256_file(path) for name, path in files.items()}
    assert hash_files(files) == first and read == ["a.json", "b.json"]

    before = files["a.json"].stat()
    files["a.json"].write_text("two")  # of the same size
    os.utime(files["a.json"], ns=(before.st_atime_ns, before.st_mtime_ns))  # and time
    second = hash_files(files)
    assert second["a.json"] == sha256_file(files["a.json"]) != first["a.json"]
    assert read == ["a.json", "b.json", "a.json"]

    for broken in ("", "[]", '{"x": 1}', json.dumps({str(files["a.json"]): ["short"]})):
        HASHES.write_text(broken)
        assert hash_files(files) == second


def test_a_file_just_written_is_read_again(folder: Path) -> None:
    """A second edit within the clock's tick would have the same time."""
    hash_files(data_files(folder))
    assert not HASHES.exists()


def test_a_missing_folder_is_named_and_a_home_folder_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert named_folder("~/data", "datasets.finqa.path") == folder
    assert named_folder("../data", "datasets.finqa.path") == Path("../data")
    for path in ("~/nothing", "../data/a.json", "~nobody-of-this-name/data"):
        with pytest.raises(UserError) as caught:
            named_folder(path, "models.mine.name")
        assert str(caught.value) == f"models.mine.name: {path} is not a folder"
    copy = tmp_path / "work/.dvc/tmp/exps/tmp0"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(UserError) as caught:
        named_folder("../data", "datasets.finqa.path")
    assert str(caught.value) == (
        f"datasets.finqa.path: ../data is not a folder in {copy}, where a queued experiment runs; "
        "write the whole path"
    )


# ------------------------------------------------------------------------------- through DVC


def ran(project: Path, *command: str) -> set[str]:
    """The stages that a command of DVC ran, other than `inputs`."""
    lines = must(project, "dvc", *command).splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")} - {"inputs"}


def rows(path: Path) -> int:
    return len(json.loads(path.read_text()))


def drop_a_row(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))


@pytest.mark.slow
def test_an_edit_of_the_users_data_is_noticed_on_any_way(tmp_path: Path) -> None:
    project, data = copy_project(tmp_path / "project", SMALL), tmp_path / "mine"
    must(project, "dvc", "repro", "fetch")
    shutil.copytree(project / "data/fetch", data)
    options = ["-S", "dataset=finqa", "-S", f"datasets.finqa.path=../{data.name}"]
    assert ran(project, "exp", "run", *options, "examples") == {"code", *CHAIN, "base"}
    assert ran(project, "repro", "examples") == set()
    assert "always changed" in must(project, "dvc", "status", "inputs")

    drop_a_row(data / "test.json")
    assert ran(project, "repro", "fetch") == {"fetch"}
    assert rows(project / "data/fetch/test.json") == 9
    # Another data set and back: DVC's run cache must not bring the rows of the first run.
    must(project, "dvc", "exp", "run", "-S", "dataset=sample", "fetch")
    assert rows(project / "data/fetch/test.json") == 10
    drop_a_row(data / "test.json")
    must(project, "dvc", "exp", "run", "-S", "dataset=finqa", "fetch")
    assert rows(project / "data/fetch/test.json") == 8

    data.rename(tmp_path / "renamed")
    done = run(project, "dvc", "repro", "fetch")
    assert "inputs: datasets.finqa.path: ../mine is not a folder\n" in done.stderr
    assert "Traceback" not in done.stderr and done.returncode != 0
    set_params(project, {"datasets.finqa.path": str(tmp_path / "renamed")})
    must(project, "dvc", "repro", "fetch")


@pytest.mark.slow
def test_other_weights_in_a_local_model_are_noticed_and_its_policies_refused(
    tmp_path: Path,
) -> None:
    project, model = copy_project(tmp_path / "project", SMALL), tmp_path / "model"
    shutil.copytree(project / "pretrain/pocket", model)
    set_params(project, {"models.pocket.name": str(model), "models.pocket.operands": "cells"})
    assert ran(project, "repro", "pools", "base") == {"code", *CHAIN, "pools", "base"}
    (model / "README.md").write_text("Another text.")
    assert ran(project, "repro", "base") == set()
    must(project, "python", "stages/code.py")

    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    done = run(project, "python", "stages/selector_evaluate.py", "base", "0")
    told = (
        f"selector_evaluate: {model}: its weights are not those that models/base/base.json tells of"
    )
    assert done.stderr.splitlines()[-1] == f"{told} (model.safetensors); run dvc repro"
    shutil.copytree(project / "models/selector/base/0", tmp_path / "old")
    assert ran(project, "repro", "base") == {"base"}
    shutil.rmtree(project / "models/selector/base/0")
    shutil.copytree(tmp_path / "old", project / "models/selector/base/0")
    done = run(project, "python", "stages/selector_evaluate.py", "base", "0")
    assert "selector_evaluate: models/selector/base/0: trained on " in done.stderr
    assert len(done.stderr.splitlines()) == 1

    (model / "added_tokens.json").write_text("{}")
    assert ran(project, "repro", "base") == {"base"}

"""A result is recorded with its inputs, and refused if they have changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from toys import PARAMS, ROOT
from workspace import set_params

from posttrain.core import code
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, sha256_file, write_json
from posttrain.core.manifest import build_manifest, check_code, digest, hash_path, write_manifest
from posttrain.core.params import load_params

STAGE = "selector_sft"
CODE = "src/posttrain/selector/train.py"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: params.yaml, rows, the project's code and its digests."""
    for name in ("src/posttrain", "stages"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "rows").write_text("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code, "PROJECT", tmp_path)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "src/posttrain")
    monkeypatch.setattr(code, "consumers", lambda params: [STAGE])
    note_code()
    return tmp_path


def note_code() -> None:
    """Store the digests like stage code."""
    code.write_digests(code.CODE, PARAMS)


def built(**extra: Any) -> dict[str, Any]:
    sections = load_params().sections("selector.common", "selector.sft", "model")
    return build_manifest(STAGE, sections, ["rows"], **extra)


def test_sections_are_named_as_in_params_yaml() -> None:
    found = PARAMS.sections("selector.ppo", "model", "evaluate")
    assert [*found] == ["selector.ppo", "model", "evaluate"]
    assert found["selector.ppo"] == PARAMS.selector.sections["ppo"]
    assert found["model"]["name"] == PARAMS.models[PARAMS.model].name
    assert "generator" in found["evaluate"]  # plain values, to any depth


def test_a_result_of_unchanged_things_gets_its_manifest(project: Path) -> None:
    manifest = built(seed=0)
    write_manifest(project, manifest)
    assert read_json(project / "manifest.json") == manifest
    check_code(project)


def test_a_manifest_names_stage_code_and_packages_and_nothing_of_this_machine(
    project: Path,
) -> None:
    manifest = built(seed=0)
    assert manifest["stage"] == STAGE and manifest["seed"] == 0
    assert manifest["code"] == sha256_file(f"data/code/{STAGE}")
    assert {"torch", "transformers"} <= manifest["packages"].keys()
    assert str(project) not in repr(manifest) and str(Path.home()) not in repr(manifest)


def test_the_digest_follows_params_data_code_and_seed(project: Path) -> None:
    first = digest(built(seed=0))
    assert digest(built(seed=0)) == first
    assert digest(built(seed=1)) != first
    for edit in (edit_params, edit_data, edit_code):
        edit(project)
        note_code()
        before, first = first, digest(built(seed=0))
        assert first != before
    edit_a_comment(project)
    note_code()
    assert digest(built(seed=0)) == first


def test_a_folders_hash_covers_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    before = hash_path(tmp_path)
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert hash_path(tmp_path) != before


def edit_code(project: Path) -> None:
    with (project / CODE).open("a") as file:
        file.write("EDITED = 1\n")


def edit_a_comment(project: Path) -> None:
    with (project / CODE).open("a") as file:
        file.write("# edited\n")


def edit_data(project: Path) -> None:
    (project / "rows").write_text("2")


def edit_params(project: Path) -> None:
    set_params(project, {"selector.sft.epochs": 7})


def edit_common(project: Path) -> None:
    set_params(project, {"selector.common.warmup": 0.5})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            edit_code,
            f"{CODE} has changed since stage code hashed it for {STAGE}; run dvc repro, or",
        ),
        (edit_data, "rows was changed while this ran, so the result is not kept"),
        (edit_params, r"params\.yaml: selector\.sft was changed while this ran"),
        (edit_common, r"params\.yaml: selector\.common was changed while this ran"),
    ],
)
def test_an_edit_while_a_stage_runs_is_named_and_its_result_not_kept(
    project: Path, edit: Any, message: str
) -> None:
    """DVC hashes at the end, so it would record the edited file as the input of the result."""
    manifest = built()
    edit(project)
    with pytest.raises(UserError, match=f"^{message}") as caught:
        write_manifest(project, manifest)
    assert "\n" not in str(caught.value)
    assert not (project / "manifest.json").exists()


def test_comments_and_params_of_other_stages_may_be_edited_while_a_stage_runs(
    project: Path,
) -> None:
    manifest = built()
    set_params(project, {"selector.ppo.clip_range": 0.7, "models.llama-3-8b.batch_size": 2})
    edit_a_comment(project)
    write_manifest(project, manifest)


def test_a_result_of_other_code_is_refused_with_the_stage_that_made_it(project: Path) -> None:
    """Stage code has stored the edit, but the stage has not run again."""
    made = Path("models/selector/sft/0")
    write_manifest(made, built())
    edit_code(project)
    note_code()
    with pytest.raises(
        UserError, match=f"^{made} was made with other code of {STAGE}; run dvc repro$"
    ):
        check_code(made)


def test_a_stage_whose_code_was_never_noted_does_not_start(project: Path) -> None:
    with pytest.raises(UserError, match=r"^data/code/selector_rl/ppo: missing; name ppo in selec"):
        build_manifest("selector_rl/ppo", {}, [])
    assert build_manifest("pretrain", {}, [], code="of its own")["code"] == "of its own"


@pytest.mark.parametrize("content", [{}, {"code": "one hash of all"}, []])
def test_a_manifest_that_names_no_code_is_refused(project: Path, content: Any) -> None:
    write_json(project / "manifest.json", content)
    with pytest.raises(UserError, match=r"manifest\.json: has no stage and code; run dvc repro"):
        check_code(project)

"""A result is recorded with what it was made from, and refused where that is not what is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from workspace import ROOT, set_params

from posttrain.core import manifest as module
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, sha256_file, write_json
from posttrain.core.manifest import build_manifest, check_code, hash_code, write_manifest
from posttrain.core.params import load_params

CODE = "src/posttrain/selector/train.py"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that a manifest of this project names."""
    for name in ("params.yaml", CODE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "rows").write_text("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "PROJECT", tmp_path)
    monkeypatch.setattr(module, "hash_code", lambda: {CODE: sha256_file(tmp_path / CODE)})
    return tmp_path


def built(**extra: Any) -> dict[str, Any]:
    sections = load_params().sections("sft.selector", "model")
    return build_manifest("sft_selector", sections, ["rows"], **extra)


def test_sections_are_named_as_in_params_yaml() -> None:
    params = load_params(ROOT / "params.yaml")
    found = params.sections("rl.selector.ppo", "model", "evaluate")
    assert [*found] == ["rl.selector.ppo", "model", "evaluate"]
    assert found["rl.selector.ppo"]["clip_range"] == params.rl.selector.ppo.clip_range
    assert found["model"]["name"] == params.models[params.model].name
    assert "generator" in found["evaluate"]  # plain values, to any depth


def test_code_is_named_file_by_file_without_those_that_only_say_what_they_are() -> None:
    code = hash_code()
    assert code["src/posttrain/core/manifest.py"] == sha256_file(
        ROOT / "src/posttrain/core/manifest.py"
    )
    assert all((ROOT / name).is_file() for name in code)
    assert "src/posttrain/__init__.py" not in code


def test_a_result_of_unchanged_things_gets_its_manifest(project: Path) -> None:
    manifest = built(seed=0)
    write_manifest(project, manifest)
    assert read_json(project / "manifest.json") == manifest
    check_code(project)


def edit_code(project: Path) -> None:
    with (project / CODE).open("a") as file:
        file.write("# edited\n")


def remove_code(project: Path) -> None:
    (project / CODE).unlink()


def edit_data(project: Path) -> None:
    (project / "rows").write_text("2")


def edit_params(project: Path) -> None:
    set_params(project, {"sft.selector.epochs": 7})


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (edit_code, CODE),
        (remove_code, CODE),
        (edit_data, "rows"),
        (edit_params, "params.yaml: sft.selector"),
    ],
)
def test_an_edit_while_a_stage_runs_is_named_and_its_result_not_kept(
    project: Path, edit: Any, named: str
) -> None:
    """DVC, which hashes at the end, would record the result as made from the edited file."""
    manifest = built()
    edit(project)
    with pytest.raises(UserError, match=f"^{named} was changed while this ran") as caught:
        write_manifest(project, manifest)
    assert "\n" not in str(caught.value)
    assert not (project / "manifest.json").exists()


def test_params_of_other_stages_may_be_edited_while_a_stage_runs(project: Path) -> None:
    manifest = built()
    set_params(project, {"rl.selector.ppo.steps": 7, "models.llama-3-8b.batch_size": 2})
    write_manifest(project, manifest)


@pytest.mark.parametrize("edit", [edit_code, remove_code])
def test_a_result_of_other_code_is_refused_with_the_file_that_differs(
    project: Path, edit: Any
) -> None:
    made = project / "models/sft_selector/0"
    write_manifest(made, built())
    edit(project)
    message = f"^models/sft_selector/0 was made by another {CODE}; run dvc repro"
    with pytest.raises(UserError, match=message):
        check_code(made.relative_to(project))


def test_a_stage_does_not_start_from_a_model_of_other_code(project: Path) -> None:
    write_manifest(project / "models/sft_selector/0", built())
    build_manifest("rl_selector", {}, ["models/sft_selector/0"])
    edit_code(project)
    with pytest.raises(UserError, match="models/sft_selector/0 was made by another"):
        build_manifest("rl_selector", {}, ["models/sft_selector/0"])


@pytest.mark.parametrize("content", [{}, {"code": "one hash of all"}, []])
def test_a_manifest_that_names_no_code_is_refused(project: Path, content: Any) -> None:
    write_json(project / "manifest.json", content)
    with pytest.raises(UserError, match=r"manifest\.json: names no code"):
        check_code(project)

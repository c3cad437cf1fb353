"""`make demo` and the last lines of `make repro`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from workspace import ROOT

from posttrain import demo
from posttrain.core.errors import UserError
from posttrain.core.methods import check_methods
from posttrain.core.params import load_params
from posttrain.report import summary

TABLE = "| policy | accuracy % |\n|--------|-----------:|\n| **SFT**|   **60.8** |"


def test_the_demos_settings_are_small_and_valid(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    demo.make_small(path)
    params = load_params(path)
    check_methods(params)
    assert len(params.selector.methods) == len(params.generator.methods) == 1
    assert params.selected_dataset.source == "generated"
    assert params.selected_dataset.train < load_params(ROOT / "params.yaml").selected_dataset.train


def test_the_demo_copies_only_what_is_there_and_makes_a_pipeline_of_its_own() -> None:
    assert all((ROOT / part).exists() for part in demo.PARTS)
    assert demo.DEMO.parts == ("demo",)
    assert "/demo/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_demo_without_the_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PROJECT", tmp_path)
    with pytest.raises(UserError, match=r"dvc\.yaml: missing; run the demo in a clone"):
        demo.main()


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a finished run leaves it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    best = {"policy": "grpo", "seed": 0, "val_accuracy": 0.625}
    for family in ("selector", "generator"):
        path = Path(f"plots/compare/{family}.md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"- **The {family} gains.**\n- More.\n\n### Right answers, %\n\n{TABLE}\n\nA note.\n"
        )
    Path("metrics").mkdir()
    Path("metrics/best.json").write_text(json.dumps({"selector": best, "generator": best}))
    return tmp_path


def test_a_run_ends_with_its_tables_the_chosen_policies_and_where_the_report_is(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["summary", "90"])
    summary.main()
    told = capsys.readouterr().out
    assert "generator: The generator gains." in told and "| SFT    |       60.8 |" in told
    assert "chosen: grpo, seed 0, 62.5 % right on validation; models/best/generator" in told
    assert told.rstrip().endswith("plots/report.html: open it in a browser, 1.5 minutes")


def test_a_comparison_without_a_table_is_named(finished: Path) -> None:
    Path("plots/compare/selector.md").write_text("- nothing\n")
    with pytest.raises(UserError, match=r"plots/compare/selector\.md: has no table"):
        summary.main()

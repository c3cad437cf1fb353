"""Every stage and method on GSM8K's generated sample, switched by `dataset` alone, with a tiny Llama."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_architectures import run_stage, stages_of, write_checkpoint
from workspace import GENERATOR_METHODS, METHODS, TINY, copy_project, set_params

from posttrain.core.files import read_json, read_jsonl

SIZES: dict[str, Any] = {"train": 8, "val": 4, "test": 4}
DATA_STAGES = ("code", "fetch", "audit", "examples")
ANSWER_TOKENS = 256
VARIANTS = ("direct", "reflective", "deliberative")
CHANGES = (
    TINY
    | {
        **{f"datasets.gsm8k-sample.{split}": size for split, size in SIZES.items()},
        "selector.methods": [*METHODS],
        "selector.policies": ["base", "sft", *METHODS],
        "generator.methods": [*GENERATOR_METHODS],
        "generator.policies": ["base", "sft", *GENERATOR_METHODS],
        "generator.ppo.prompts": "all",
        "pools.count": 4,
        "generator.sample.questions": SIZES["train"],
        "generator.sample.variants": [*VARIANTS],
        "generator.sample.temperature": 0.6,  # hardly any sample at 1.0 is right, and no pair without one
        "evaluate.bootstrap": 20,
        "compare.bootstrap": 20,
    }
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run on gsm8k-sample."""
    project = copy_project(tmp_path_factory.mktemp("gsm8k"), CHANGES)
    set_params(project, {"dataset": "gsm8k-sample"})
    with contextlib.chdir(project):
        for stage in stages_of(project):
            if stage.name in DATA_STAGES:
                run_stage(stage)
    folder = tmp_path_factory.mktemp("llama")
    examples = read_jsonl(project / "data/examples/train.jsonl")
    entry = write_checkpoint(folder, "llama", examples, ANSWER_TOKENS)
    set_params(project, {"models.llama": entry, "model": "llama"})
    with contextlib.chdir(project):
        for stage in stages_of(project):
            if stage.name not in DATA_STAGES:
                run_stage(stage)
            assert [out.def_path for out in stage.outs if not Path(out.def_path).exists()] == []
    return project


@pytest.mark.parametrize(
    ("family", "methods"), [("selector", METHODS), ("generator", GENERATOR_METHODS)]
)
def test_every_policy_is_compared(project: Path, family: str, methods: tuple[str, ...]) -> None:
    compared = read_json(project / f"metrics/compare/{family}.json")
    assert {"base", "sft", *methods} <= compared.keys()
    assert all(math.isfinite(x) for leaves in compared.values() for x in leaves.values())


def test_each_trajectory_has_text_answer_length_correctness_quality_and_reward(
    project: Path,
) -> None:
    samples = read_jsonl(project / "data/generator_sample/0/samples.jsonl")
    asked = ("text", "answer", "tokens", "correct", "quality", "reward", "parts")
    assert all(name in record for record in samples for name in asked)
    parts = {"program_valid", "format_valid", "steps_used", "no_repetition"}
    assert all(record["quality"].keys() == parts for record in samples)


def test_pairs_prefer_right_answers_and_every_margin_is_positive(project: Path) -> None:
    folder = project / "data/generator_pairs/0"
    pairs = read_jsonl(folder / "train.jsonl") + read_jsonl(folder / "held_out.jsonl")
    right = {
        (record["id"], record["text"]): record["correct"]
        for record in read_jsonl(project / "data/generator_sample/0/samples.jsonl")
    }
    assert pairs
    for pair in pairs:
        assert pair["margin"] > 0 and right[pair["id"], pair["chosen"]]
        assert right[pair["id"], pair["rejected"]] == (pair["kind"] == "quality")


def test_draws_are_measured_by_variant(project: Path) -> None:
    metrics = read_json(project / "metrics/generator_sample/0.json")
    assert metrics.keys() == {*VARIANTS}
    for measured in metrics.values():
        assert all(0 <= share <= 1 for share in measured["quality"].values())
    statistics = read_json(project / "metrics/generator_pairs/0.json")
    assert {f"success_{variant}" for variant in VARIANTS} <= statistics.keys()


def test_the_report_shows_the_problems_and_how_answers_are_made(project: Path) -> None:
    page = (project / "plots/report.html").read_text()
    question = read_jsonl(project / "data/examples/test.jsonl")[0]["question"]
    assert json.dumps(question)[1:-1].split(". ")[0] in page
    markdown = (project / "plots/report.md").read_text()
    assert "annotations: keep" in markdown and "operands" not in markdown

"""Fixtures of the shared real data (if present) and generated examples; and the tests that `make quick` skips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.tasks import get_task
from posttrain.tasks.finqa.examples import make_example
from posttrain.tasks.finqa.sample import generate
from posttrain.tasks.rendering import render

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

# `make quick` skips modules that start processes or train for long, tests on the real data, and single tests marked `slow`.
SLOW = {
    "test_adding_a_model",
    "test_adding_a_task",
    "test_architectures",
    "test_export",
    "test_generator_ppo",
    "test_generator_trl",
    "test_gsm8k_pipeline",
    "test_launch",
    "test_pipeline",
    "test_pretraining",
    "test_stage",
    "test_storage",
}
REAL_DATA = {"finqa_dir", "gsm8k_dir", "oracle_path", "alfworld_dir"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW or REAL_DATA & {*getattr(item, "fixturenames", ())}:
            item.add_marker("slow")


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {relative} in a folder `shared` beside the repository")
    return path


@pytest.fixture(scope="session")
def finqa_dir() -> Path:
    return _shared("datasets/finqa")


@pytest.fixture(scope="session")
def gsm8k_dir() -> Path:
    return _shared("datasets/gsm8k")


@pytest.fixture(scope="session")
def alfworld_dir() -> Path:
    return _shared("datasets/alfworld")


@pytest.fixture(scope="session")
def oracle_path() -> Path:
    return _shared("oracles/finqa_official_verdicts_dev.jsonl")


@pytest.fixture(scope="session")
def generated_examples() -> dict[str, list[dict[str, Any]]]:
    """400 generated questions as examples, in each operand form."""
    rows = generate(5, {"train": 400, "val": 1, "test": 1})["train"]
    task = get_task("finqa")
    return {
        operands: [
            render(task, make_example(row, "retrieved", 8, operands), (), 0.01) for row in rows
        ]
        for operands in ("cells", "literal")
    }

"""Fixtures: the shared real data, where it is there, and generated examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.tasks.finqa.prepare import prepare_row
from posttrain.tasks.finqa.sample import generate

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


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
def oracle_path() -> Path:
    return _shared("oracles/finqa_official_verdicts_dev.jsonl")


@pytest.fixture(scope="session")
def generated_examples() -> dict[str, list[dict[str, Any]]]:
    """400 generated questions as examples, in each operand form."""
    rows = generate(5, {"train": 400, "val": 1, "test": 1})["train"]
    return {
        operands: [prepare_row(row, "retrieved", 8, operands) for row in rows]
        for operands in ("cells", "literal")
    }

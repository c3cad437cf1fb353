"""Claims about the part of a split that `datasets.NAME.SPLIT` asks for, on real data where it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stages.audit import main as audit
from stages.examples import main as examples
from stages.fetch import main as fetch
from toys import ROOT

from posttrain.core.files import read_json, read_jsonl, write_jsonl
from posttrain.core.params import Params, check_params
from posttrain.core.schema import read_yaml
from posttrain.tasks.subset import subset

ROWS = [{"id": f"q{number}"} for number in range(100)]


def ids(count: int, seed: int = 0, rows: list[dict[str, Any]] = ROWS) -> list[str]:
    return [row["id"] for row in subset(rows, count, seed).rows]


def test_a_part_is_in_order_and_of_the_seed_and_knows_the_whole() -> None:
    assert subset(iter(ROWS), 10, 0).of == 100
    ten = ids(10)
    assert len(ten) == 10 and ten == [row["id"] for row in ROWS if row["id"] in ten]
    assert ids(10) == ten != ids(10, seed=1)
    assert sorted(ids(10, rows=ROWS[::-1])) == sorted(ten)


def test_a_larger_part_has_the_rows_of_a_smaller_one_and_a_bound_is_no_minimum() -> None:
    assert set(ids(10)) < set(ids(20)) < set(ids(99))
    assert ids(100) == ids(1000) == [row["id"] for row in ROWS]


def params(name: str, path: Path, **changes: Any) -> Params:
    values = read_yaml(ROOT / "params.yaml")
    values["dataset"] = name
    values["datasets"][name] |= {"path": str(path), **changes}
    return check_params(values)


def sizes(made: Params) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Each split with its examples and metrics."""
    for stage in (fetch, audit, examples):
        stage(made)
    metrics = read_json("metrics/examples.json")
    for split in ("train", "val", "test"):
        yield split, read_jsonl(f"data/examples/{split}.jsonl"), metrics[split]


def test_gsm8k_is_cut_after_its_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pretrain").symlink_to(ROOT / "pretrain")
    rows = [
        {"question": f"What is {n} + 1?", "answer": f"{n}+1=<<{n}+1={n + 1}>>{n + 1}\n#### {n + 1}"}
        for n in range(69)
    ]
    write_jsonl("raw/train.jsonl", rows[9:])
    write_jsonl("raw/test.jsonl", rows[:9])
    whole = {s: rows for s, rows, _ in sizes(params("gsm8k", Path("raw"), val=20))}
    assert {split: len(rows) for split, rows in whole.items()} == {
        "train": 40,
        "val": 20,
        "test": 9,
    }
    for split, rows, told in sizes(params("gsm8k", Path("raw"), train=10, val=20, test=900)):
        assert all(row in whole[split] for row in rows)
        assert (len(rows), told["examples"], told.get("of")) == {
            "train": (10, 10, 40),
            "val": (20, 20, None),
            "test": (9, 9, None),
        }[split]


def test_two_hundred_questions_of_real_finqa(
    finqa_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of its first rows, as all of them take a minute."""
    monkeypatch.chdir(tmp_path)
    Path("pretrain").symlink_to(ROOT / "pretrain")
    for name in ("train.json", "dev.json", "test.json"):
        rows = json.loads((finqa_dir / name).read_text())[:300]
        Path(name).write_text(json.dumps(rows))
    made = params("finqa", Path(), train=200, val=50, test=1)
    found = {split: (len(rows), told["of"]) for split, rows, told in sizes(made)}
    assert {split: count for split, (count, _) in found.items()} == {
        "train": 200,
        "val": 50,
        "test": 1,
    }
    assert all(290 < of <= 300 for _, of in found.values())


def test_every_stored_data_set_has_the_keys_so_that_an_override_needs_no_plus() -> None:
    for entry in read_yaml(ROOT / "params.yaml")["datasets"].values():
        assert {"train", "val", "test", "seed"} <= entry.keys()

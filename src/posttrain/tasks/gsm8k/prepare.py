"""Turn audited GSM8K rows into the examples that every later stage reads, and carve the validation split from train.

    example = prepare_row(row, annotations="keep")

An example holds the problem, the gold answer's reasoning as models should write it (`target_program`) and with its
annotations (`solution`, which candidates are made from), the final number, and how answers are read (`annotations`).
The rows of the validation split are those whose hash of seed and id is smallest, so that which they are does not
depend on the other rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import JsonLines, atomic_directory, write_jsonl
from posttrain.core.params import Params
from posttrain.tasks import Example, read_options
from posttrain.tasks.gsm8k.arithmetic import format_number, read_number
from posttrain.tasks.gsm8k.options import Annotations, Options
from posttrain.tasks.gsm8k.reading import MARK, read_steps, strict_answer, strip

Row = Mapping[str, Any]


def prepare(params: Params, source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,val,test}.jsonl of examples, made from those in `source`; return measures."""
    dataset = params.selected_dataset
    if dataset.val is None:
        raise UserError(f"params.yaml: datasets.{params.dataset}.val: missing")
    annotations = read_options(params, Options).annotations
    rows = {name: JsonLines(source / f"{name}.jsonl") for name in ("train", "test")}
    ids = [row["id"] for row in rows["train"]]
    if dataset.val >= len(ids):
        raise UserError(
            f"params.yaml: datasets.{params.dataset}.val: {dataset.val} of the "
            f"{len(ids)} rows of train leave none to train on"
        )
    drawn = draw(ids, dataset.val, dataset.seed)
    splits: dict[str, Iterable[Row]] = {
        "train": (row for row in rows["train"] if row["id"] not in drawn),
        "val": (row for row in rows["train"] if row["id"] in drawn),
        "test": rows["test"],
    }
    metrics = {}
    with atomic_directory(directory) as output:
        for split, chosen in splits.items():
            examples = JsonLines(output / f"{split}.jsonl")
            write_jsonl(examples.path, (prepare_row(row, annotations) for row in chosen))
            metrics[split] = measure(examples)
    return metrics


def draw(ids: Iterable[str], count: int, seed: int) -> set[str]:
    """The `count` ids that the seed draws."""
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(ranked[:count])


def prepare_row(row: Row, annotations: Annotations) -> dict[str, Any]:
    """One example; the row is one that the audit lets through."""
    solution, mark, last = row["answer"].rpartition(MARK)
    solution = solution.strip()
    answer = read_number(strict_answer(mark + last) or "")
    if answer is None:
        raise UserError(f"{row['id']}: the answer has no number behind {MARK.strip()}")
    return {
        "id": row["id"],
        "input_text": row["question"],
        "question": row["question"],
        "target_program": strip(solution) if annotations == "strip" else solution,
        "target_answer": format_number(answer),
        "solution": solution,
        "annotations": annotations,
    }


def measure(examples: Iterable[Example]) -> dict[str, float]:
    """Counts and means over one split."""
    steps, words, answer_words = [], [], []
    for example in examples:
        steps.append(len(read_steps(example["solution"], "keep")))
        words.append(len(example["question"].split()))
        answer_words.append(len(example["target_program"].split()))
    return {
        "examples": len(steps),
        "words_mean": round(fmean(words), 2),
        "answer_words_mean": round(fmean(answer_words), 2),
        "steps_mean": round(fmean(steps), 2),
        "without_steps": steps.count(0),
    }

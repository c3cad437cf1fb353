"""GSM8K's examples, made from audited rows; the validation split is taken out of train.

    example = make_example(row, annotations="keep")

An example holds the problem, the gold answer's reasoning as models should write it (`target_program`) and with its
annotations (`solution`, from which candidates are made), the final number, and how answers are read (`annotations`).
The validation split has the rows with the smallest hashes of seed and id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import JsonLines
from posttrain.core.params import Params
from posttrain.tasks import Example, read_options
from posttrain.tasks.gsm8k.arithmetic import format_number
from posttrain.tasks.gsm8k.options import Annotations, Options
from posttrain.tasks.gsm8k.reading import MARK, gold_answer, read_steps, strip

Row = Mapping[str, Any]


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited rows in `source`."""
    dataset, key = params.selected_dataset, f"params.yaml: datasets.{params.dataset}.val"
    annotations = read_options(params, Options).annotations
    rows = JsonLines(source / ("test.jsonl" if split == "test" else "train.jsonl"))
    if split != "test":
        if dataset.val is None:
            raise UserError(f"{key}: missing")
        ids = [row["id"] for row in rows]
        if dataset.val >= len(ids):
            raise UserError(
                f"{key}: {dataset.val} of the {len(ids)} rows of train leave none to train on"
            )
        held_out = draw(ids, dataset.val, dataset.seed)
    for row in rows:
        if split == "test" or (row["id"] in held_out) == (split == "val"):
            yield make_example(row, annotations)


def draw(ids: Iterable[str], count: int, seed: int) -> set[str]:
    """A random sample of `count` ids."""
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(ranked[:count])


def make_example(row: Row, annotations: Annotations) -> dict[str, Any]:
    """One example, from a row that passed the audit."""
    solution = row["answer"].rpartition(MARK)[0].strip()
    answer = gold_answer(row["answer"])
    if answer is None:
        raise UserError(f"{row['id']}: the answer's last line is not {MARK}and a number")
    return {
        "id": row["id"],
        "question": row["question"],
        "target_program": strip(solution) if annotations == "strip" else solution,
        "target_answer": format_number(answer),
        "solution": solution,
        "annotations": annotations,
    }


def measure(examples: Iterable[Example]) -> dict[str, float]:
    """Means over one split, and the number of answers without steps."""
    steps, words, answer_words = [], [], []
    for example in examples:
        steps.append(len(read_steps(example["solution"], "keep")))
        words.append(len(example["question"].split()))
        answer_words.append(len(example["target_program"].split()))
    return {
        "words_mean": round(fmean(words), 2),
        "answer_words_mean": round(fmean(answer_words), 2),
        "steps_mean": round(fmean(steps), 2),
        "without_steps": steps.count(0),
    }

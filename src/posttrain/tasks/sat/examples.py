"""The examples, made from audited formulas; the gold answer is one of the satisfying assignments, drawn by the seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from posttrain.core.files import JsonLines
from posttrain.core.params import Params
from posttrain.tasks import Example
from posttrain.tasks.sat.formula import (
    Operators,
    members,
    satisfying,
    write_assignment,
    write_formula,
)
from posttrain.tasks.sat.load import FILES
from posttrain.tasks.sat.options import operators_of


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited rows in `source`."""
    operators, seed = operators_of(params), params.selected_dataset.seed
    for row in JsonLines(source / FILES[split]):
        yield make_example(row, operators, seed)


def make_example(row: Mapping[str, Any], operators: Operators, seed: int) -> dict[str, Any]:
    """One example, from a row that passed the audit; `satisfying` counts the assignments that do."""
    variables, clauses = row["variables"], row["clauses"]
    found = satisfying(variables, clauses)
    count = found.bit_count()
    drawn = Random(f"{seed}/{row['id']}").randrange(count)
    gold = next(islice(members(found), drawn, None))
    sizes = sorted({len(clause) for clause in clauses})
    kind = f"{sizes[0]}-SAT" if len(sizes) == 1 else "SAT"
    return {
        "id": row["id"],
        "question": f"Find a satisfying assignment for the following {kind} formula over variables "
        f"x1..x{variables}:\n{write_formula(clauses, operators)}",
        "variables": variables,
        "clauses": clauses,
        "operators": operators,
        "satisfying": count,
        "share": count / 2**variables,
        "level": row["level"],
        "target_answer": write_assignment(gold, variables),
    }


def measure(examples: Iterable[Example]) -> dict[str, Any]:
    """Means over one split, and the number of questions of each level."""
    variables, clauses, counts = [], [], []
    levels = Counter[int]()
    for example in examples:
        variables.append(example["variables"])
        clauses.append(len(example["clauses"]))
        counts.append(example["satisfying"])
        levels[example["level"]] += 1
    return {
        "variables_mean": round(fmean(variables), 2),
        "clauses_mean": round(fmean(clauses), 2),
        "satisfying_mean": round(fmean(counts), 2),
        "levels": {str(level): number for level, number in sorted(levels.items())},
    }

"""Random formulas that can be satisfied, generated from a seed: the task's default without a network.

    splits = generate(seed=0, sizes={"train": 2000, "val": 250, "test": 500}, options=options)

Clauses are drawn uniformly, without repetition, and nothing is planted: a formula is kept if enumeration finds a
satisfying assignment. (Planting one, by forcing a literal of each clause, gives it away by the signs of the literals.)
Kept formulas are spread evenly over levels, by the share of the assignments that satisfy: level 1 has the largest.

No two formulas are the same up to names of variables and order of clauses and literals, within a split or between
splits (`formula.invariant`). The same seed gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks.sat.formula import invariant, satisfying
from posttrain.tasks.sat.options import Options

Row = dict[str, Any]
PATIENCE = 5000  # formulas drawn in a row without one that is kept


def generate(seed: int, sizes: Mapping[str, int], options: Options) -> dict[str, list[Row]]:
    """Rows with `variables`, `clauses` and `level`; `UserError` if formulas of some level are too rare."""
    seen: set[int] = set()
    return {
        split: _split(Random(f"{seed}/{split}"), size, options, seen)
        for split, size in sizes.items()
    }


def level_of(share: float, options: Options) -> int | None:
    """The level of a share of satisfying assignments, 1 to `levels`; None if it is out of bounds."""
    least, largest = options.share
    if not least <= share <= largest:
        return None
    part = math.log(largest / share) / math.log(largest / least)
    return min(int(part * options.levels), options.levels - 1) + 1


def _split(rng: Random, size: int, options: Options, seen: set[int]) -> list[Row]:
    levels = range(1, options.levels + 1)
    missing = {level: len(range(level - 1, size, options.levels)) for level in levels}
    rows: list[Row] = []
    in_vain = 0
    while len(rows) < size:
        row = _draw(rng, options)
        wanted = missing.get(row["level"], 0) > 0
        if wanted and (name := invariant(row["clauses"])) not in seen:
            missing[row["level"]] -= 1
            seen.add(name)
            rows.append(row)
            in_vain = 0
        elif (in_vain := in_vain + 1) == PATIENCE:
            rare = next(level for level in levels if missing[level])
            low, high = (_edge(options, level) for level in (rare, rare - 1))
            raise UserError(
                f"{PATIENCE} formulas in a row have no new one of which {low:.2g} to {high:.2g} of the assignments "
                f"satisfy; change share, levels, variables, k or ratio in the data set's options"
            )
    rng.shuffle(rows)
    return rows


def _edge(options: Options, level: int) -> float:
    least, largest = options.share
    return float(largest * (least / largest) ** (level / options.levels))


def _draw(rng: Random, options: Options) -> Row:
    """A random formula; its level is None if it cannot be satisfied, or its share is out of bounds."""
    variables = rng.randint(*options.variables)
    clauses: dict[tuple[int, ...], None] = {}
    while len(clauses) < int(options.ratio * variables):
        chosen = sorted(rng.sample(range(1, variables + 1), options.k))
        clauses[tuple(number if rng.random() < 0.5 else -number for number in chosen)] = None
    written = [rng.sample(clause, options.k) for clause in clauses]
    share = satisfying(variables, written).bit_count() / 2**variables
    level = level_of(share, options) if share else None
    return {"variables": variables, "clauses": written, "level": level}

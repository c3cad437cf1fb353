"""Candidates for the selector: a satisfying assignment among neighbours that are nearly one.

Gold and most of the others lie around an assignment that is not among them: each is that centre with one or two values
flipped. So gold has no place among the others that a reader of candidates alone could find, neither in the middle, as if
the others were made from gold itself, nor at the rim.

    plausible    neighbour             one or two values from the centre, and so one to four from gold; in formulas of few
                                       variables, where there are too few of these, more
    corrupted    random_assignment     a value for each variable at random
                 unset_variable        a neighbour without one of its variables

None of them satisfies the formula. A pool depends on the seed and the example alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from posttrain.core.errors import UserError
from posttrain.core.params import Params
from posttrain.tasks import Candidate, Example
from posttrain.tasks.sat.formula import (
    holds,
    read_values,
    satisfying,
    write_assignment,
    write_values,
)

REACH = 2  # values flipped, at most
MISSES = 200  # draws in a row that bring nothing new


def candidates(
    params: Params, train: Iterable[Example]
) -> Callable[[Example, int], list[Candidate]]:
    """make(example, n): n distinct candidates in random order, one of them gold."""
    config = params.pools

    def make(example: Example, count: int) -> list[Candidate]:
        return make_candidates(
            example, count=count, seed=config.seed, corruption_rate=config.corruption_rate
        )

    return make


def make_candidates(
    example: Example, *, count: int, seed: int, corruption_rate: float
) -> list[Candidate]:
    """`count` distinct candidates, one of them gold; `UserError` if so many wrong assignments are not there."""
    rng = Random(f"{seed}/{example['id']}")
    variables, gold = example["variables"], example["target_answer"]
    right = satisfying(variables, example["clauses"])
    given = sum(value << number - 1 for number, value in read_values(gold, variables))
    centre = given ^ _flips(rng, variables, REACH)
    pool = {gold: Candidate(gold, "gold", "gold")}
    reach, misses = REACH, 0
    while len(pool) < count:
        made = _candidate(rng, example, centre, reach, corruption_rate, right)
        if made is not None and made.text not in pool:
            pool[made.text] = made
            misses = 0
        elif (misses := misses + 1) == MISSES:
            reach, misses = reach + 1, 0
            if reach > variables:
                raise UserError(
                    f"{example['id']}: {len(pool)} candidates are all that its {variables} variables give, and "
                    f"pools.count and pools.oversample ask for {count}; use formulas with more variables"
                )
    found = [*pool.values()]
    rng.shuffle(found)
    return found


def _candidate(
    rng: Random, example: Example, centre: int, reach: int, corruption_rate: float, right: int
) -> Candidate | None:
    """A wrong candidate; None if what was drawn is right."""
    variables = example["variables"]
    if rng.random() >= corruption_rate:
        assignment = centre ^ _flips(rng, variables, reach)
        kind, edit = "plausible", "neighbour"
    elif rng.random() < 0.5:
        assignment = rng.getrandbits(variables)
        kind, edit = "corrupted", "random_assignment"
    else:
        text = write_assignment(centre ^ _flips(rng, variables, reach), variables)
        values = dict(read_values(text, variables))
        del values[rng.randint(1, variables)]
        if not values or all(holds(clause, values) for clause in example["clauses"]):
            return None
        return Candidate(write_values(values), "corrupted", "unset_variable")
    if right >> assignment & 1:
        return None
    return Candidate(write_assignment(assignment, variables), kind, edit)


def _flips(rng: Random, variables: int, reach: int) -> int:
    """A number with one to `reach` bits, the values to flip."""
    size = rng.randint(1, min(reach, variables))
    return sum(1 << place for place in rng.sample(range(variables), size))

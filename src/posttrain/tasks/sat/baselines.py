"""What answers without any search are worth: the expected share of them that is right, exactly, by enumeration.

random_assignment    each variable is True or False at random
majority_polarity    each variable has the sign of most of its literals, and a random value if there are as many of both
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import fmean

from posttrain.tasks import Example
from posttrain.tasks.sat.formula import satisfying, truths


def baselines(examples: Iterable[Example]) -> dict[str, float]:
    """Both accuracies over one split."""
    rates = [(example["share"], majority_polarity(example)) for example in examples]
    return {
        "random_assignment": fmean(rate for rate, _ in rates),
        "majority_polarity": fmean(rate for _, rate in rates),
    }


def majority_polarity(example: Example) -> float:
    """The probability that an assignment by majority satisfies the formula."""
    variables, clauses = example["variables"], example["clauses"]
    balance = Counter[int]()
    for clause in clauses:
        for literal in clause:
            balance[abs(literal)] += 1 if literal > 0 else -1
    tables = truths(variables)
    drawn = tables[0]
    for number in range(1, variables + 1):
        if balance[number]:
            drawn &= tables[number if balance[number] > 0 else -number]
    return (drawn & satisfying(variables, clauses)).bit_count() / drawn.bit_count()

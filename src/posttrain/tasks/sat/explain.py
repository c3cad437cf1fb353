"""An assignment taken apart for a reader: the formula, clause by clause, and the clauses that it leaves false.

A false clause is a step and a place (C3 is the third).
"""

from __future__ import annotations

from posttrain.tasks import Example, ExplainedStep, Explanation, Line, Piece
from posttrain.tasks.sat.formula import holds, read_values, write_clause, write_values
from posttrain.tasks.sat.score import MAX_CHARACTERS
from posttrain.tasks.texts import without_thoughts

MAX_STEPS = 30  # false clauses that are shown


def explain(example: Example, text: str) -> Explanation:
    """The formula, and the clauses that the answer does not satisfy; any text is explained."""
    clauses = {
        f"C{number}": (clause, write_clause(clause, example["operators"]))
        for number, clause in enumerate(example["clauses"], 1)
    }
    heading = example["question"].partition("\n")[0]
    page = (
        Line((Piece(heading),)),
        *(Line((Piece(written, place),)) for place, (_, written) in clauses.items()),
    )
    found = read_values(without_thoughts(text[:MAX_CHARACTERS]), example["variables"])
    if not found:
        return Explanation(page, (), (), None, "no assignment such as x1=True")
    values = dict(found)
    false = [place for place, (clause, _) in clauses.items() if not holds(clause, values)]
    steps = tuple(
        ExplainedStep("false clause", place, clauses[place][1], "False", None)
        for place in false[:MAX_STEPS]
    )
    return Explanation(page, steps, tuple(false), write_values(values), None)

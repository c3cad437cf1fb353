"""The one scorer of assignments.

Values are read as Affine's environment SAT reads them: everything of the form x1=True (or False, 1, 0) counts, wherever
it stands; the last value of a variable wins; a variable without a value satisfies nothing. An answer is `correct` if
every clause then has a true literal, which assignments to some of the variables may manage.

    parts                satisfied: all clauses are; clauses: the share of them that is; format_valid: the text is one
                         value for each variable, in their order, separated by commas, and nothing else
    quality              format_valid: as above; no_repetition: share of the values that are the first of their variable
    answer_lenient       the verdict with spaces, other cases and `:` allowed in a value
    self_consistent      no variable has two different values
    status               unparseable: no value for any variable, or over `MAX_CHARACTERS`; unscorable: the example's own
                         gold answer does not satisfy its formula
    value, answer        the values of the formula's variables, by which a majority is counted
    failure              the first of `FAILURES` that applies; None for a right answer
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks import Score
from posttrain.tasks.sat.formula import holds, read_values, write_values
from posttrain.tasks.texts import without_thoughts

FAILURES = (
    "unscorable",
    "says_unsatisfiable",
    "unparseable",
    "variable_unset",
    "one_clause_false",
    "clauses_false",
)
PARTS = ("satisfied", "clauses", "format_valid")
QUALITY = ("format_valid", "no_repetition")
MAX_CHARACTERS = 100_000

_FIELDS = ("variables", "clauses", "target_answer")
_LENIENT = re.compile(r"\bx_?([0-9]{1,4})[ \t]{0,9}[=:][ \t]{0,9}(true|false|1|0)\b", re.I)
_UNSATISFIABLE = re.compile(r"\bUNSAT\b|\bunsatisfiable\b", re.I)


def score(text: str | bytes, example: Mapping[str, Any]) -> Score:
    """Score one answer to one example.

    text: any text gets a score, in time linear in its length. `UserError` if the example lacks a field, never for the
    text.
    """
    for field in _FIELDS:
        if field not in example:
            raise UserError(f"example {example.get('id')!r} has no field {field!r}")
    variables, clauses = example["variables"], example["clauses"]
    gold = dict(read_values(str(example["target_answer"]), variables))
    if not all(holds(clause, gold) for clause in clauses):
        return _unscored("unscorable")
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    if len(text) > MAX_CHARACTERS:
        return _unscored("unparseable")
    text = without_thoughts(text)
    lenient = _normal(text, variables)
    right_leniently = bool(lenient) and all(holds(clause, lenient) for clause in clauses)
    found = read_values(text, variables)
    if not found:
        said = _UNSATISFIABLE.search(text)
        return _unscored("unparseable", "says_unsatisfiable" if said else None, right_leniently)
    values = dict(found)
    true = sum(holds(clause, values) for clause in clauses)
    right = true == len(clauses)
    form = text.strip() == write_values(values) and len(values) == variables
    answer = write_values(values)
    return Score(
        correct=right,
        parts={
            "satisfied": float(right),
            "clauses": true / len(clauses),
            "format_valid": float(form),
        },
        quality={"format_valid": float(form), "no_repetition": len(values) / len(found)},
        value=answer,
        answer=answer,
        answer_lenient=right or right_leniently,
        self_consistent=len(set(found)) == len(values),
        failure=_failure(len(clauses) - true, len(values) < variables),
    )


def _failure(false: int, incomplete: bool) -> str | None:
    if not false:
        return None
    if incomplete:
        return "variable_unset"
    return "one_clause_false" if false == 1 else "clauses_false"


def _normal(text: str, variables: int) -> dict[int, bool]:
    """The values of a text, read with more patience."""
    values = {
        int(digits): value.lower() in ("true", "1") for digits, value in _LENIENT.findall(text)
    }
    return {number: value for number, value in values.items() if 1 <= number <= variables}


def _unscored(status: str, failure: str | None = None, lenient: bool = False) -> Score:
    parts, quality = dict.fromkeys(PARTS, 0.0), dict.fromkeys(QUALITY, 0.0)
    return Score(False, parts, status, answer_lenient=lenient, failure=failure, quality=quality)

"""Formulas in conjunctive normal form, their satisfying assignments by enumeration, and both as text.

A clause is a list of literals, 3 for x3 and -3 for its negation. Variables are x1 to xN. An assignment to all of them is
a number whose bit i-1 is the value of xi, and a set of assignments (a truth table) is a number of 2**N bits, one for
each: so a formula is evaluated for all assignments at once by the bitwise operators of Python's integers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import Literal

LARGEST = 20  # variables; a truth table has 2**20 bits, 128 KiB

Clause = Sequence[int]
Operators = Literal["words", "symbols"]

_SIGNS: Mapping[Operators, tuple[str, str, str]] = {
    "words": (" and ", " or ", "not "),
    "symbols": (" ∧ ", " ∨ ", "¬"),
}
_ASSIGNED = re.compile(r"x([0-9]+)=(True|False|1|0)")


def fault(variables: int, clauses: Sequence[Clause]) -> str | None:
    """What keeps the clauses from being a formula with so many variables; None if it is one."""
    if not 1 <= variables <= LARGEST:
        return f"{variables} variables; there must be 1 to {LARGEST}"
    if not clauses:
        return "no clauses"
    for number, clause in enumerate(clauses, 1):
        if not clause:
            return f"clause {number} is empty"
        for literal in clause:
            if not 1 <= abs(literal) <= variables:
                return f"clause {number} has {literal}; variables are 1 to {variables}"
        if len({abs(literal) for literal in clause}) < len(clause):
            return f"clause {number} has a variable twice: {list(clause)}"
    return None


# ------------------------------------------------------------------------------ truth tables


@cache
def truths(variables: int) -> tuple[int, ...]:
    """The table of each literal by its number: 0 is all assignments, and -3 counts from the end."""
    size = 1 << variables
    everything = (1 << size) - 1
    tables = []
    for variable in range(variables):
        half = 1 << variable
        table = ((1 << half) - 1) << half
        while (half := 2 * half) < size:
            table |= table << half
        tables.append(table)
    return (everything, *tables, *(everything ^ table for table in reversed(tables)))


def satisfying(variables: int, clauses: Sequence[Clause]) -> int:
    """The table of the formula."""
    tables = truths(variables)
    found = tables[0]
    for clause in clauses:
        found &= reduce(or_, (tables[literal] for literal in clause))
        if not found:
            break
    return found


def members(table: int) -> Iterator[int]:
    """The assignments of a table, in ascending order."""
    place = 0
    for byte in table.to_bytes((table.bit_length() + 7) // 8, "little"):
        while byte:
            low = byte & -byte
            yield place + low.bit_length() - 1
            byte ^= low
        place += 8


# ------------------------------------------------------------------------------ sameness


def invariant(clauses: Sequence[Clause]) -> int:
    """A number that formulas share if they differ only in names of variables and order of clauses and of literals.

    It is the hash of three rounds of colour refinement (Weisfeiler and Leman 1968) on the graph of literals in clauses.
    Formulas that differ otherwise may share it, which is rare among random ones.
    """
    occurrences: dict[int, list[tuple[bool, int]]] = {}
    for number, clause in enumerate(clauses):
        for literal in clause:
            occurrences.setdefault(abs(literal), []).append((literal > 0, number))
    colours = dict.fromkeys(occurrences, 0)
    of_clauses: list[int] = []
    for _ in range(3):
        of_clauses = [
            hash(tuple(sorted((literal > 0, colours[abs(literal)]) for literal in clause)))
            for clause in clauses
        ]
        colours = {
            variable: hash((colours[variable], *sorted((s, of_clauses[c]) for s, c in places)))
            for variable, places in occurrences.items()
        }
    return hash((*sorted(of_clauses), *sorted(colours.values())))


# ------------------------------------------------------------------------------ texts


def write_clause(clause: Clause, operators: Operators) -> str:
    """(x1 or not x2 or x3), in words or in symbols."""
    _, either, negation = _SIGNS[operators]
    literals = (f"{negation if literal < 0 else ''}x{abs(literal)}" for literal in clause)
    return f"({either.join(literals)})"


def write_formula(clauses: Sequence[Clause], operators: Operators) -> str:
    """The clauses, joined by `and`."""
    return _SIGNS[operators][0].join(write_clause(clause, operators) for clause in clauses)


def write_values(values: Mapping[int, bool]) -> str:
    """x1=True, x2=False, by the variables' numbers."""
    return ", ".join(f"x{variable}={value}" for variable, value in sorted(values.items()))


def write_assignment(assignment: int, variables: int) -> str:
    """The text of an assignment to all variables."""
    return write_values(
        {number: bool(assignment >> number - 1 & 1) for number in range(1, variables + 1)}
    )


def read_values(text: str, variables: int) -> list[tuple[int, bool]]:
    """The values that a text gives to variables of the formula, in its order; one may occur more than once."""
    found = []
    for digits, value in _ASSIGNED.findall(text):
        digits = digits.lstrip("0")
        if 0 < len(digits) <= 2 and int(digits) <= variables:
            found.append((int(digits), value in ("True", "1")))
    return found


def holds(clause: Clause, values: Mapping[int, bool]) -> bool:
    """Whether a literal of the clause is true; a variable without a value makes none true."""
    return any(values.get(abs(literal)) == (literal > 0) for literal in clause)

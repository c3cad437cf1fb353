"""Satisfiability: an assignment to Boolean variables that makes every clause of a formula true."""

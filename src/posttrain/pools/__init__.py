"""Candidate pools: making, scoring and filtering them, and blind baselines."""

"""Measures of answers and of choices, with intervals and tests."""

"""Figures over answers and choices, and how sure they are."""

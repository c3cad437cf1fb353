"""Abduction: from a program and its output to an input that gives it, which is tried in the sandbox."""

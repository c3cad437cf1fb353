"""Deduction: from a problem in words to a program, which is tested on hidden cases in the sandbox."""

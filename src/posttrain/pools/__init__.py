"""Candidate pools: filtered, scored, and measured for what can be won blind."""

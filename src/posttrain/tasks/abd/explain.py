"""An answer taken apart for a reader: the program's lines, its output, and the stated input."""

from __future__ import annotations

from posttrain.tasks import Example, Explanation, Line, Piece


def explain(example: Example, text: str) -> Explanation:
    """The program and its output as lines of a page, and the text as the answer."""
    told = [*example["question"].splitlines(), f"output: {example['output']}"]
    page = tuple(Line((Piece(line),)) for line in told)
    return Explanation(page, (), (), text.strip() or None, None)

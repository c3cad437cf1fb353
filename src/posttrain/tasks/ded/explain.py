"""An answer taken apart for a reader: the problem with its shown cases, and the program's lines."""

from __future__ import annotations

from posttrain.tasks import Example, Explanation, Line, Piece


def explain(example: Example, text: str) -> Explanation:
    """The problem, the shown cases and the hidden ones as lines of a page, and the text as the answer."""
    told = [example["question"]]
    for name in ("shown", "hidden"):
        told += [f"{name}: {given} → {output}" for given, output in example[name]]
    page = tuple(Line((Piece(line),)) for line in told)
    return Explanation(page, (), (), text.strip() or None, None)

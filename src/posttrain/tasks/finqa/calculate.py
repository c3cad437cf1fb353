"""The calculation of an answer: its program's value in place of the stated answer."""

from __future__ import annotations

from posttrain.tasks import Example
from posttrain.tasks.finqa.program import format_answer
from posttrain.tasks.finqa.prompt import render_answer
from posttrain.tasks.finqa.score import read_answer, score


def calculate(text: str, example: Example) -> str:
    """The answer with its program's value as the stated answer; unchanged if it does not execute."""
    found, value = read_answer(text), score(text, example).value
    if found is None or value is None:
        return text
    return render_answer(found[0], format_answer(value))

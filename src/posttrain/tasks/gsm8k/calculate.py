"""The calculation of an answer: the calculator's results in place of the stated ones, if the options say so."""

from __future__ import annotations

from posttrain.tasks import Example
from posttrain.tasks.gsm8k.reading import answer_of


def calculate(text: str, example: Example) -> str:
    """The answer without thoughts, and with the calculator's results if `annotations` is execute."""
    return answer_of(text, example["annotations"])

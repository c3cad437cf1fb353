"""The calculation of an answer: the calculator's results in place of the stated ones, if the options say so."""

from __future__ import annotations

from posttrain.tasks import Example
from posttrain.tasks.gsm8k.reading import execute


def calculate(text: str, example: Example) -> str:
    """The answer with the calculator's results; unchanged unless `annotations` is execute."""
    return execute(text) if example["annotations"] == "execute" else text

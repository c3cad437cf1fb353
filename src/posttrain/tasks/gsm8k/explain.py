"""An answer taken apart for a reader: the problem's sentences, and the value of each calculator step.

    explain(example, "Half of 48 is <<48/2=24>>24.\\n#### 24")        48/2=24        48/2        24

Left out: the verdicts, which are the scorer's alone.
"""

from __future__ import annotations

import re
from itertools import pairwise

from posttrain.tasks import Example, ExplainedStep, Explanation, Line, Piece
from posttrain.tasks.gsm8k.arithmetic import format_number
from posttrain.tasks.gsm8k.reading import Step, answer_of, read_steps, strict_answer
from posttrain.tasks.gsm8k.score import MAX_CHARACTERS

MAX_STEPS = 30  # explained steps of an answer

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_OPERATIONS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}


def explain(example: Example, text: str) -> Explanation:
    """The problem, and the answer's steps with the values of the scorer's executor."""
    page = tuple(Line((Piece(line),)) for line in _SENTENCE_END.split(example["question"]))
    text = answer_of(text, example["annotations"])[:MAX_CHARACTERS]
    steps = read_steps(text, example["annotations"])[:MAX_STEPS]
    answer = strict_answer(text)
    error = None if steps or answer else "no calculation and no number after ####"
    return Explanation(page, tuple(map(_explained, steps)), (), answer, error)


def _explained(step: Step) -> ExplainedStep:
    used = [
        name
        for before, operator in pairwise(f" {step.expression}")
        if (name := _OPERATIONS.get(operator)) and before not in " (+-*/"
    ]
    value = None if step.value is None else format_number(step.value)
    written = f"{step.expression}={step.stated}" if step.stated else step.expression
    operation = " and ".join(dict.fromkeys(used)) or "state"
    return ExplainedStep(operation, written, step.expression, value, step.error)

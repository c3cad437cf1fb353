"""FinQA's prompts and answers as text; no other module renders them.

A prompt is the page, the question and, for literal operands, an instruction; an answer is one JSON object `{"program":
["subtract(B3, C3)", "divide(#0, C3)"], "answer": "0.01639"}`. With operands as cells there is no instruction, because
the small base model is trained on exactly this form. A variant asks for the same answer in another way, with one more
line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.tasks import Example
from posttrain.tasks.finqa.program import OPERATIONS, ProgramError, parse, render

_INSTRUCTION = (
    'Answer with one JSON object and nothing else: "program" is a list of steps, "answer" is its '
    "result as text. A step is one of {operations}, with two arguments: numbers as they stand on "
    "the page, #0, #1, ... for the results of earlier steps, or constants such as const_100. "
    "A table operation takes a row label and none.\n"
    'Example: {{"program": ["subtract(5829, 5735)", "divide(#0, 5735)"], "answer": "0.01639"}}'
)
_ASKS: Mapping[Variant, Mapping[str, str]] = {
    "reflective": {
        "cells": "check the answer before you write it.",
        "literal": "Before you write, check the answer: the right numbers, the right years, the "
        "right operation, the right unit. Write only the object that passed the check.",
    },
    "deliberative": {
        "cells": "first think which cells are needed and in which order.",
        "literal": "Before you write, think which numbers of the page are needed, in which order "
        "they are combined, and what each step gives. Write only the object.",
    },
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the answer begins.

    variant: direct asks for the answer only; reflective asks to check it before writing it; deliberative asks to think
    first which numbers are needed, and in which order. The form of the answer is the same for all, so scores can be
    compared.
    """
    page, question, operands = (example[name] for name in ("input_text", "question", "operands"))
    ask = "" if variant == "direct" else f"{_ASKS[variant][operands]}\n"
    if operands == "cells":
        return f"{page}\n{ask}question: {question}\nanswer:"
    instruction = _INSTRUCTION.format(operations=", ".join(OPERATIONS))
    return f"{page}\n\nQuestion: {question}\n{instruction}\n{ask}Answer:"


def render_answer(program_text: str, answer: str) -> str:
    """The JSON text of an answer; a program that does not parse is written as a single step."""
    try:
        steps = [render((step,)) for step in parse(program_text)]
    except ProgramError:
        steps = [program_text]
    return json.dumps({"program": steps, "answer": answer}, ensure_ascii=False)


def target(example: Example) -> str:
    """The gold answer as a model should write it."""
    return render_answer(example["target_program"], example["target_answer"])

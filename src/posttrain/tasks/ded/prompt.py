"""Prompts and answers as text; no other module renders them.

A prompt is an instruction, the problem, and the shown cases; an answer is a block of Python code.
"""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.tasks import Example

FENCE = "```"

_PROGRAM = "Write a Python program that reads its input from stdin and prints its output."
_FUNCTION = "Write the Python function."
_ASKS: Mapping[Variant, str] = {
    "direct": "",
    "reflective": "Check the program on the examples before you write it.\n",
    "deliberative": "First think which steps lead from the input to the output.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the answer begins. The form of the answer is the same in all variants."""
    ask = _FUNCTION if example.get("call") else _PROGRAM
    cases = "".join(_shown(example, *case) for case in example["shown"])
    return (
        f"{ask} Put it into one {FENCE}python block.\n{_ASKS[variant]}"
        f"Problem: {example['question']}\n{cases}Answer:"
    )


def _shown(example: Example, given: str, output: str) -> str:
    if example.get("call"):
        return f"Example: {example['call']}{given} == {output}\n"
    return f"Input: {given}\nOutput: {output}\n"


def target(example: Example) -> str:
    """The reference program as a model should write it."""
    return f"{FENCE}python\n{example['program']}\n{FENCE}"

"""Prompts and answers as text; no other module renders them.

A prompt is an instruction, the program and its output; an answer is an input between <INPUT> and </INPUT>.
"""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.tasks import Example

_PROGRAM = "Find an input for which the program prints the output."
_FUNCTION = "Find arguments, separated by commas, for which the function returns the output."
_ASKS: Mapping[Variant, str] = {
    "direct": "",
    "reflective": "Check that the program gives the output before you write the input.\n",
    "deliberative": "First think what each step of the program does to the output, from the last to the first.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the answer begins. The form of the answer is the same in all variants."""
    ask = _FUNCTION if example.get("call") else _PROGRAM
    return (
        f"{ask} Put it between <INPUT> and </INPUT>.\n{_ASKS[variant]}"
        f"```python\n{example['question'].rstrip()}\n```\nOutput: {example['output']}\nAnswer:"
    )


def target(example: Example) -> str:
    """The known input as a model should write it."""
    return f"<INPUT>{example['input']}</INPUT>"

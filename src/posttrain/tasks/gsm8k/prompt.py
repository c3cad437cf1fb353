"""GSM8K's prompts and answers as text; no other module renders them.

A prompt is an instruction, then the problem; an answer is reasoning, line by line, and a last line `#### number`. A
variant asks for the same answer in another way, with one more line.
"""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.tasks import Example
from posttrain.tasks.gsm8k.options import Annotations
from posttrain.tasks.gsm8k.reading import MARK

_STEP: Mapping[Annotations, str] = {
    "keep": "<<48/2=24>>24",
    "execute": "<<48/2=24>>24",
    "strip": "48/2 = 24",
}
_INSTRUCTION = (
    "You are a tutor who explains a math problem to a student, step by step. Write each "
    "calculation as {step}, and on a last line of its own #### and the answer, a number."
)
_ASKS: Mapping[Variant, str] = {
    "direct": "",
    "reflective": "Check each calculation, and that it answers the question, before you write it.\n",
    "deliberative": "First think what is asked, which numbers are needed and in which order.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the answer begins.

    variant: direct asks for the answer only; reflective asks to check it before writing it; deliberative asks to think
    first which numbers are needed, and in which order. The form of the answer is the same for all, so scores can be
    compared.
    """
    instruction = _INSTRUCTION.format(step=_STEP[example["annotations"]])
    return f"{instruction}\n{_ASKS[variant]}Problem: {example['question']}\nSolution:"


def render_answer(reasoning: str, answer: str) -> str:
    """The text of an answer."""
    return f"{reasoning}\n{MARK}{answer}" if reasoning else f"{MARK}{answer}"


def target(example: Example) -> str:
    """The gold answer as a model should write it."""
    return render_answer(example["target_program"], example["target_answer"])

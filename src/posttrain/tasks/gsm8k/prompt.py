"""The only place where a GSM8K example becomes text for a model, and where an answer in our form is written.

A prompt tells how to answer, then the problem; an answer is reasoning, line by line, and a last line `#### number`.
A variant asks for the same answer in another way, in one line more. `prompt_hash` names the renderer's version.
"""

from __future__ import annotations

import hashlib
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


def render_prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of a prepared example; it ends where the answer begins.

    variant: direct asks for the answer and no more; reflective asks to check it before writing it;
    deliberative asks to think first which numbers are needed, and in which order. The answer's form
    is the same for all, so scores compare.
    """
    instruction = _INSTRUCTION.format(step=_STEP[example["annotations"]])
    return f"{instruction}\n{_ASKS[variant]}Problem: {example['question']}\nSolution:"


def render_answer(reasoning: str, answer: str) -> str:
    """The text of an answer."""
    return f"{reasoning}\n{MARK}{answer}" if reasoning else f"{MARK}{answer}"


def render_target(example: Example) -> str:
    """The gold answer as a model should write it."""
    return render_answer(example["target_program"], example["target_answer"])


def prompt_hash(variant: Variant = "direct") -> str:
    """SHA-256 over fixed examples as rendered: it changes when what models read in this variant does."""
    example = {"question": "What is half of 48?"}
    texts = [render_prompt({**example, "annotations": form}, variant) for form in _STEP]
    texts.append(render_answer("Half of 48 is 48/2 = <<48/2=24>>24.", "24"))
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()

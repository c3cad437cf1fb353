"""The prompts, in the form of Affine's environment SAT.

A variant asks for the same answer in another way, with one more line.
"""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.tasks import Example

_ASKS: Mapping[Variant, str] = {
    "direct": "",
    "reflective": "Check that every clause has a true literal before you write the assignment.\n",
    "deliberative": "First think which variables occur mostly with one sign, and what the other clauses then need.\n",
}
_FORM = (
    "Provide your answer as comma-separated assignments like `x1=True, x2=False, ...`, or respond "
    "`UNSAT` if it has no solution."
)


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the answer begins. The form of the answer is the same for all variants."""
    return f"{example['question']}\n{_ASKS[variant]}{_FORM}\nAnswer:"

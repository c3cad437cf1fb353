"""The prompt: the actions, the form of an answer, and the first observation."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.environments import starts
from posttrain.tasks import Example

_RULES = """Actions: search[WORDS] | click[PRODUCT] | click[OPTION] | click[features] | click[description] | \
click[reviews] | click[next >] | click[< prev] | click[back to search] | click[buy now]
"""
_HINTS: Mapping[Variant, str] = {
    "reflective": "Check that all fits before you buy.\n",
    "deliberative": "First think what the goal asks for, and which of it you have seen.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the first answer begins."""
    return starts.prompt(_RULES, _HINTS, example, variant)

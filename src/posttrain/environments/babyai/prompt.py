"""The prompt: the actions, the form of an answer, and the first observation."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.environments import starts
from posttrain.tasks import Example

_RULES = """Actions: turn left | turn right | move forward | go to THING | pickup THING | drop | toggle | go through DOOR | \
toggle and go through DOOR | check available actions
"""
_HINTS: Mapping[Variant, str] = {
    "reflective": "Check that you see what you name.\n",
    "deliberative": "First think where the goal is.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the first answer begins."""
    return starts.prompt(_RULES, _HINTS, example, variant)

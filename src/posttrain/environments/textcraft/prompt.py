"""The prompt: the rules in short, the form of an answer, and the first observation."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.environments import starts
from posttrain.tasks import Example

_RULES = """Actions: get N item | craft N item using N item, N item | inventory
Get what no recipe makes. For `any` name one kind.
"""
_HINTS: Mapping[Variant, str] = {
    "reflective": "Check what you have before you craft.\n",
    "deliberative": "First think which items the goal needs, and what they need.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the first answer begins."""
    return starts.prompt(_RULES, _HINTS, example, variant)

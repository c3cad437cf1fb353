"""The prompt: the commands, the form of an answer, and the first observation."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.environments import starts
from posttrain.tasks import Example

# Words in small letters are a token or two of a small tokenizer, those in capitals five.
_RULES = """Actions: go to place | open place | close place | take thing from place | move thing to place | use lamp | \
clean thing with place | heat thing with place | cool thing with place | slice thing with knife | examine thing | look | \
inventory | help
"""
_HINTS: Mapping[Variant, str] = {
    "reflective": "Check that you are where the thing is.\n",
    "deliberative": "First think where the thing may be.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the first answer begins."""
    return starts.prompt(_RULES, _HINTS, example, variant)

"""The prompt: the actions, the form of an answer, and the first observation."""

from __future__ import annotations

from collections.abc import Mapping

from posttrain.core.params import Variant
from posttrain.environments import starts
from posttrain.tasks import Example

_RULES = """Actions: look around | look at X | look in X | inventory | go to X | open X | close X | pick up X | put down X |
move X to Y | pour X in Y | dunk X in Y | mix X | use X on Y | activate X | deactivate X | connect X to Y | disconnect X |
read X | eat X | flush X | focus on X | wait | wait1
A wrong focus ends the game.
"""
_HINTS: Mapping[Variant, str] = {
    "reflective": "Check that you have found what you focus on.\n",
    "deliberative": "First think which room has what the task needs.\n",
}


def prompt(example: Example, variant: Variant = "direct") -> str:
    """The prompt of an example; it ends where the first answer begins."""
    return starts.prompt(_RULES, _HINTS, example, variant)

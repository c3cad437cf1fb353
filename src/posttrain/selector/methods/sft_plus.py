"""SFT+, the control of the RL methods: SFT continued from where they start, for as many steps as they take.

The loss is that of SFT; `prompts_per_step` and `inner_epochs` say what a step costs. A gain of an RL method over SFT that
SFT+ has as well is one of more training, not of RL.
"""

from __future__ import annotations

from posttrain.selector.methods.sft import loss, rollout
from posttrain.selector.settings import RL

__all__ = ["Settings", "loss", "rollout"]


class Settings(RL):
    """Only those of `RL`."""

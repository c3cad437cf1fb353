"""The tokens that a policy read and wrote in one episode, and its rewards for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Episode:
    """Token ids, which of them are the policy's actions, and rewards as (position of a token, reward after it).

    All other ids (a prompt, the answer of a tool) are read and not trained on; a reward after one of them counts for
    the last action before it.
    """

    ids: Sequence[int]
    actions: Sequence[bool]
    rewards: Sequence[tuple[int, float]]

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the actions, if these are all at the end of the episode, else none."""
        length = len(self.ids) - sum(self.actions)
        return () if any(self.actions[:length]) else tuple(self.ids[:length])

    def action_rewards(self) -> list[float]:
        """For each action, the sum of the rewards after it and before the next."""
        totals = [0.0] * sum(self.actions)
        for position, reward in self.rewards:
            action = sum(self.actions[: position + 1]) - 1
            if action < 0:
                raise ValueError(f"the reward at token {position} comes before the first action")
            totals[action] += reward
        return totals


def completion_episode(prompt: Sequence[int], completion: Sequence[int], reward: float) -> Episode:
    """An episode of one turn, rewarded at its last token."""
    if not prompt or not completion:
        raise ValueError("an episode needs a prompt and at least one action")
    ids = [*prompt, *completion]
    actions = [False] * len(prompt) + [True] * len(completion)
    return Episode(ids, actions, [(len(ids) - 1, reward)])

"""A curriculum: groups of questions that are asked from later on, by the step or by what the policy earns.

By the step, at step s of S the first 1 + floor(s n / S) of n groups are open. With `reward` the next one opens once the
newest one's m is as high; a step whose episodes in it earn r on average makes m (m + r) / 2, from 0.

A step asks `prompts_per_step` questions of the open groups, each question as likely as any other. Random numbers derive
from (seed, step), and what was earned is in `state`, so a resumed run repeats the uninterrupted one.

Left out: closing groups that are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from posttrain.core.errors import UserError
from posttrain.core.loop import Stats
from posttrain.generator.settings import Curriculum
from posttrain.rollouts.episode import Episode
from posttrain.tasks import Example


class Groups:
    """The groups of `examples`, of a training of `steps` steps.

    state: the groups that are open, and the running mean of the newest one's rewards, (2,), changed in place. `UserError`
    for an example without the field, and for an order that does not have the groups there are.
    """

    def __init__(self, settings: Curriculum, examples: Sequence[Example], steps: int) -> None:
        assert settings.by is not None
        self.settings, self.steps = settings, steps
        self.state: Tensor = torch.tensor([1.0, 0.0], dtype=torch.float64)
        places: dict[str | int, list[int]] = {}
        for place, example in enumerate(examples):
            if settings.by not in example:
                raise UserError(
                    f"params.yaml: generator: curriculum.by: {example['id']} has no {settings.by!r}"
                )
            places.setdefault(example[settings.by], []).append(place)
        order = settings.order or sorted(places, key=lambda name: (isinstance(name, str), name))
        if sorted(map(str, order)) != sorted(map(str, places)):
            raise UserError(
                "params.yaml: generator: curriculum.order: expected the groups of the training questions, "
                f"{', '.join(sorted(map(str, places)))}"
            )
        self.groups = [places[name] for name in order]

    def ask(self, count: int, seed: int, step: int) -> list[int]:
        """Indices of `count` of the open groups' examples, or of all if there are fewer."""
        if self.settings.reward is None:
            self.state[0] = 1 + step * len(self.groups) // self.steps
        found = [place for group in self.groups[: int(self.state[0])] for place in group]
        return Random(f"{seed}/{step}/curriculum").sample(found, min(count, len(found)))

    def learn(self, asked: Sequence[int], episodes: Sequence[Episode]) -> Stats:
        """Open the next group if the newest one's rewards are high enough; statistics.

        episodes: of the examples that were asked, equally many of each, in their order.
        """
        count = int(self.state[0])
        newest, samples = set(self.groups[count - 1]), len(episodes) // max(1, len(asked))
        earned = [
            episode.score
            for number, episode in enumerate(episodes)
            if asked[number // samples] in newest and episode.end != "error"
        ]
        stats = {"open_groups": float(count)}
        if earned:
            mean = sum(earned) / len(earned)
            self.state[1] = (self.state[1] + mean) / 2
            stats["newest_reward"] = mean
        least = self.settings.reward
        if least is not None and self.state[1] >= least and count < len(self.groups):
            self.state += torch.tensor([1.0, -float(self.state[1])], dtype=torch.float64)
        return stats

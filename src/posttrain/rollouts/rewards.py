"""The reward of a completion: what the task's one scorer says of its text.

A completion without an end is worth what its text is worth. `counts` keeps wrong, unparseable and unscorable
completions apart. An unscorable question (its gold answer does not hold) gives all its completions the reward of
no component, so that it moves no policy whose advantage is relative to the group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.models.tokens import SEPARATOR
from posttrain.tasks import Example, Task

VERDICTS = ("correct", "wrong", "unparseable", "unscorable")


class RewardFunction:
    """Rewards of completions of these examples; `counts` has how many got which verdict so far."""

    __name__ = "reward"  # TRL names its metrics after the function

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        tolerance: float,
        weights: Mapping[str, float],
    ) -> None:
        self.task = task
        self.examples = examples
        self.tolerance = tolerance
        self.weights = weights
        self.counts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))

    def rewards(self, texts: Sequence[str], example_indices: Sequence[int]) -> list[float]:
        """The reward of each text as an answer to the example of that index."""
        return self._judge(texts, example_indices)[0]

    def __call__(
        self,
        completions: Sequence[str],
        example: Sequence[int],
        log_metric: Callable[[str, float], None] | None = None,
        **others: Any,
    ) -> list[float]:
        """TRL's contract: completions as decoded, the column `example`, and a hook for metrics."""
        texts = [text.removeprefix(SEPARATOR) for text in completions]
        rewards, verdicts = self._judge(texts, example)
        if log_metric is not None:
            for verdict in VERDICTS:
                log_metric(verdict, verdicts[verdict] / len(texts))
        return rewards

    def _judge(
        self, texts: Sequence[str], example_indices: Sequence[int]
    ) -> tuple[list[float], Counter[str]]:
        verdicts: Counter[str] = Counter()
        rewards = []
        for text, index in zip(texts, example_indices, strict=True):
            score = self.task.score(text, self.examples[index], self.tolerance)
            if score.status == "scored":
                verdicts["correct" if score.execution_correct else "wrong"] += 1
            else:
                verdicts[score.status] += 1
            rewards.append(self.task.reward(score.components, self.weights))
        self.counts.update(verdicts)
        return rewards, verdicts

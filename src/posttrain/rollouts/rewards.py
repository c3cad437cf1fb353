"""The reward of a completion, from the task's score of its text.

An unfinished completion is scored like any other. All completions of an unscorable question (whose gold answer does not
hold) get the reward of no part, so that they move no policy whose advantage is relative to the group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.tasks import Example, Task
from posttrain.tasks.reward import reward

VERDICTS = ("correct", "wrong", "unparseable", "unscorable")


class RewardFunction:
    """Rewards of completions for these examples; `counts` has the number of each verdict so far."""

    def __init__(
        self,
        task: Task,
        examples: Sequence[Example],
        weights: Mapping[str, float],
    ) -> None:
        self.task = task
        self.examples = examples
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
        """TRL's signature: texts as in `sampling.Completion`, the column `example`, and a hook for metrics."""
        rewards, verdicts = self._judge(completions, example)
        if log_metric is not None:
            for verdict in VERDICTS:
                log_metric(verdict, verdicts[verdict] / len(completions))
        return rewards

    def _judge(
        self, texts: Sequence[str], example_indices: Sequence[int]
    ) -> tuple[list[float], Counter[str]]:
        verdicts: Counter[str] = Counter()
        rewards = []
        examples = [self.examples[index] for index in example_indices]
        for score in self.task.scores(texts, examples):
            if score.status == "scored":
                verdicts["correct" if score.correct else "wrong"] += 1
            else:
                verdicts[score.status] += 1
            rewards.append(reward(score.parts, self.weights))
        self.counts.update(verdicts)
        return rewards, verdicts

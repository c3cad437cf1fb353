"""A question of a task of one turn as an environment, for data sets that have both: its one action is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.environments import Outcome
from posttrain.tasks import Score, Task
from posttrain.tasks.reward import reward


class Question:
    """The episode ends at the goal if the answer is correct; its reward is that of the task.

    weights: of the reward's parts.
    """

    def __init__(self, task: Task, weights: Mapping[str, float]) -> None:
        self.task, self.weights = task, weights
        self.row: Mapping[str, Any] | None = None

    def reset(self, row: Mapping[str, Any]) -> str:
        """The question."""
        self.row = row
        return str(row["question"])

    def step(self, action: str) -> Outcome:
        """Answer it."""
        return self.judged(None if self.row is None else self.task.score(action, self.row))

    def judged(self, score: Score | None) -> Outcome:
        """What comes of an answer with this score."""
        if self.row is None or score is None:
            raise RuntimeError("the question is answered")
        self.row = None
        end: Any = "goal" if score.correct else "failed"
        return Outcome("", reward(score.parts, self.weights), end, score.status == "scored")

    def legal(self) -> None:
        """Answers cannot be listed."""

    def expert(self) -> str | None:
        """The gold answer."""
        return None if self.row is None else str(self.row["target"])

    def state_key(self) -> str:
        """The question, until it is answered."""
        return "" if self.row is None else str(self.row["question"])

    def close(self) -> None:
        """Nothing is kept."""

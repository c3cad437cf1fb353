"""What PPO's settings do over episodes: rewards of steps or of the end alone, credit by token or by turn, and those of
`ppo_affine` one at a time, on the same small game.

    PYTHONPATH=src:tests:. python benchmarks/credit.py [SEEDS [WORD ...]]      rows with one of the words alone

The game is the hallway of tests/hallway.py: a door 2 to 6 steps away, and two turns for each. A step nearer earns a share of
0.5, one away costs as much, the door earns the other half. `end` pays the same sum at the last turn. The model is its
walker, which goes the right way in three of four steps that have the form of an action. Every training has 16 steps of 8
starts and 4 episodes each. Success is that of the episodes sampled in all steps, which says how fast it learns, and in the
last 3; means over seeds with 95 % intervals over them (Student's t).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from hallway import (  # type: ignore[import-not-found]
    Hallway,
    hallway_params,
    hallway_run,
    hallway_task,
    start,
    walker,
)
from scipy.stats import t
from toys import settings  # type: ignore[import-not-found]

from posttrain.core.methods import load_method
from posttrain.environments import Outcome
from posttrain.tasks import Task

STEPS, LAST = 16, 3
PARAMS = hallway_params(slots=64, context=250)
STARTS = [start(n, steps=2 + n % 5, turns=2 * (2 + n % 5)) for n in range(40)]
AFFINE: dict[str, Any] = {
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "inner_epochs": 4,
    "value_coef": 0.5,
    "entropy_coef": 0.01,
}
SMALL: dict[str, Any] = {
    "steps": STEPS,
    "prompts": "all",
    "prompts_per_step": 8,
    "samples": 4,
    "learning_rate": 1e-3,
    "evaluations": 1,
}


class AtTheEnd(Hallway):  # type: ignore[misc]
    """The hallway with all rewards of an episode at its last turn."""

    def reset(self, row: Mapping[str, Any]) -> str:
        self.earned, self.turns, self.most = 0.0, 0, row["turns"]
        return str(super().reset(row))

    def step(self, action: str) -> Outcome:
        told = super().step(action)
        self.earned += told.reward
        self.turns += 1
        last = told.end is not None or self.turns == self.most
        return Outcome(told.observation, self.earned if last else 0.0, told.end, told.valid)


def main() -> None:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
    steps, end = hallway_task(), hallway_task(lambda params, row: AtTheEnd())
    rows: list[tuple[str, Task, str, dict[str, Any]]] = [
        (f"rewards of {name}, credit by {credit}", task, "ppo", {"credit": credit})
        for name, task in (("steps", steps), ("the end", end))
        for credit in ("token", "turn")
    ]
    rows += [(f"{key} {value}", steps, "ppo", {key: value}) for key, value in AFFINE.items()]
    rows += [
        (f"{name}, rewards of steps", steps, name, {}) for name in ("ppo_affine", "grpo", "rloo")
    ]
    words = sys.argv[2:]
    rows = [row for row in rows if not words or any(word in row[0] for word in words)]
    print(
        "| PPO with | success, all steps | last steps | explained variance | KL per episode | CPU s |"
    )
    print("|---|---|---|---|---|---|")
    for name, task, method, changes in rows:
        began = time.process_time()
        found = [train(task, method, seed, changes) for seed in seeds]
        taken = (time.process_time() - began) / len(found)
        figures = [interval(each) for each in zip(*found, strict=True)]
        print(f"| {name} | {' | '.join(figures)} | {taken:.0f} |", flush=True)


def train(task: Task, method: str, seed: int, changes: dict[str, Any]) -> tuple[float, ...]:
    """Success in all steps and in the last, explained variance, and KL per episode in the last."""
    model = walker()
    with TemporaryDirectory() as folder:
        run = hallway_run(model, STARTS, Path(folder), PARAMS, seed=seed, task=task)
        chosen = settings("generator", method, **SMALL | changes)
        history = load_method("generator", method).train(run, chosen)
    last = history.train[-LAST:]
    return (
        fmean(row["success"] for row in history.train),
        fmean(row["success"] for row in last),
        fmean(row.get("explained_variance", float("nan")) for row in history.train[1:]),
        fmean(row["kl"] for row in last),
    )


def interval(values: tuple[float, ...]) -> str:
    """Mean and half the width of its interval."""
    if any(value != value for value in values):
        return "-"
    half = t.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return f"{fmean(values):.2f} ± {half:.2f}"


if __name__ == "__main__":
    main()

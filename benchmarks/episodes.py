"""Episodes per second of the engine against simpler loops, on the same model in the same run.

    PYTHONPATH=src:tests:. python benchmarks/episodes.py [EPISODES]

one by one    one slot: an episode after another
lock-step     32 episodes begin together, and the next 32 when all of them have ended
slots         32 slots, an ended one refilled at once

The game is the hallway of tests/hallway.py with doors 1 to 12 steps away, so lengths differ; the model is its walker. It
also checks that all three play the same episodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from hallway import (  # type: ignore[import-not-found]
    TOKENIZER,
    hallway_params,
    hallway_task,
    start,
    walker,
)

from posttrain.core.params import Params
from posttrain.rollouts.episode import Episode
from posttrain.rollouts.play import Policy, Start, play, successes
from posttrain.rollouts.sampling import sample

SLOTS = 32


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    model, task = walker(), hallway_task()
    lengths = [1 + n * 5 % 12 for n in range(count)]
    starts = [(start(n, steps, turns=2 * steps), 0) for n, steps in enumerate(lengths)]
    rounds = 0

    def counted(*given: Any, **more: Any) -> Any:
        nonlocal rounds
        rounds += 1
        return sample(*given, **more)

    def played(params: Params, some: list[Start]) -> list[Episode]:
        player = Policy(model, TOKENIZER, counted, params, temperature=1.0)
        return play(player, task, params, some)

    many = hallway_params(slots=SLOTS, context=250)
    parts = [starts[place : place + SLOTS] for place in range(0, count, SLOTS)]
    ways: dict[str, Callable[[], list[Episode]]] = {
        "one by one": lambda: played(hallway_params(slots=1, context=250), starts),
        "lock-step": lambda: [episode for part in parts for episode in played(many, part)],
        "slots": lambda: played(many, starts),
    }
    ways["slots"]()  # the first call of a process pays for what later ones find ready
    found: dict[str, list[Episode]] = {}
    for name, way in ways.items():
        began, used, rounds = time.perf_counter(), time.process_time(), 0
        found[name] = way()
        seconds, used = time.perf_counter() - began, time.process_time() - used
        turns = sum(len(episode.steps) for episode in found[name])
        print(
            f"{name:<12}{count / seconds:8.1f} episodes/s{turns / seconds:8.0f} turns/s{rounds:7} rounds"
            f"{used:7.1f} CPU s"
        )
    for name, episodes in found.items():
        same = sum(one == other for one, other in zip(episodes, found["slots"], strict=True))
        print(f"{name}: {same} of {count} episodes are those of slots")
    played_turns = sorted(len(episode.steps) for episode in found["slots"])
    print(
        f"success {successes(found['slots']):.2f}, turns {played_turns[0]} to {played_turns[-1]}, median "
        f"{played_turns[count // 2]}; torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    )


if __name__ == "__main__":
    main()

"""How fast environments are, how long the expert's episodes are, and what players without a model reach.

    python benchmarks/environments.py [textcraft babyai sciworld webshop alfworld] [--seconds 3]

Each name is a data set of params.yaml whose task is an environment, and its test split is made anew. Steps are random legal
actions; resets, steps and lists of legal actions are counted apart. Tokens are those of pocket. In the engine the expert
plays, with 1, 4 and 8 slots; the shares of the time are those of resets, steps and the expert. All of it in one process, and
for sciworld the Java machine that it starts, whose processor time is counted, too.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from posttrain.core.params import Params, check_params
from posttrain.core.schema import read_yaml
from posttrain.environments import Environment, write_action
from posttrain.environments.scripted import expert, success_rates
from posttrain.models.load import load_tokenizer
from posttrain.rollouts.play import Scripted, play
from posttrain.tasks import Example, Task, get_task


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", default=["textcraft", "babyai", "webshop"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    options = parser.parse_args()
    for name in options.names:
        params = check_params(read_yaml("params.yaml") | {"dataset": name})
        task = get_task(params.selected_dataset.task)
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            task.fetch(params, Path(folder) / "games")
            made = time.perf_counter() - start
            rows = [*task.examples(params, "test", Path(folder) / "games")]
        assert task.open is not None
        environment = task.open(params, rows[0])
        rates = speed(environment, rows, options.seconds)
        told = ", ".join(f"{rates[key]:.0f} {key}s/s" for key in ("reset", "step", "legal"))
        print(f"{name}: {told}; games of all splits {made:.1f} s")
        reached = success_rates(environment, rows)
        print(", ".join(f"{player} {rate:.3f}" for player, rate in reached.items()))
        for slots in (1, 4, 8):
            print(engine(task, params, rows, slots))
        print(
            "| kind | games | expert's turns, mean and most | characters | tokens | of the prompt |"
        )
        print("|---|---|---|---|---|---|")
        for line in lengths(task, environment, rows):
            print(line)


def speed(environment: Environment, rows: list[dict[str, Any]], seconds: float) -> dict[str, float]:
    """Resets, steps and lists of legal actions per second."""
    random = Random(0)
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)

    def timed(name: str, *arguments: Any) -> Any:
        start = time.perf_counter()
        found = getattr(environment, name)(*arguments)
        spent[name] += time.perf_counter() - start
        calls[name] += 1
        return found

    for row in cycle(rows):
        timed("reset", row)
        for _ in range(row["turns"]):
            legal = timed("legal")
            if timed("step", random.choice(legal) if legal else "").end is not None:
                break
        if spent["reset"] + spent["step"] > seconds:
            break
    return {name: calls[name] / spent[name] for name in spent}


class Timed:
    """An environment, and the seconds spent in each of its methods, over all that are timed."""

    def __init__(self, environment: Environment, spent: dict[str, float]) -> None:
        self._environment, self._spent = environment, spent

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._environment, name)

        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self._spent[name] += time.perf_counter() - start

        return timed


def engine(task: Task, params: Params, rows: list[dict[str, Any]], slots: int) -> str:
    """Turns per second of the expert in the engine, processor time of a turn, and where the time goes."""
    spent: dict[str, float] = defaultdict(float)
    opened = task.open
    assert opened is not None

    def timed(params: Params, row: Example) -> Any:
        return Timed(opened(params, row), spent)

    values = params.model_dump()
    values["episodes"]["slots"] = slots
    player = Scripted(expert, params.episodes.form)
    start, used = time.perf_counter(), processor_seconds()
    episodes = play(
        player, replace(task, open=timed), check_params(values), [(row, 0) for row in rows]
    )
    taken, used = time.perf_counter() - start, processor_seconds() - used
    turns = sum(len(episode.steps) for episode in episodes)
    shares = ", ".join(f"{name} {spent[name] / taken:.0%}" for name in ("reset", "step", "expert"))
    each = 1000 * used / turns
    return f"engine, {slots} slots: {turns / taken:.0f} turns/s, {each:.1f} ms CPU each; {shares}"


def processor_seconds() -> float:
    """Of this process and those that it started."""
    here = psutil.Process()
    times = [each.cpu_times() for each in (here, *here.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def lengths(task: Task, environment: Environment, rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each kind: the expert's whole episodes, prompt, answers and observations."""
    tokenizer = load_tokenizer("pretrain/pocket", None)
    kinds: dict[str, list[tuple[int, int, int, int]]] = {}
    for row in rows:
        environment.reset(row)
        prompt = task.prompt(row)
        text, turns, outcome = prompt, 0, None
        while outcome is None or outcome.end is None:
            action = environment.expert() or ""
            outcome = environment.step(action)
            text += f"\n{write_action(action, row['form'])}\n{outcome.observation}"
            turns += 1
        sizes = [len(tokenizer(each)["input_ids"]) for each in (text, prompt)]
        kinds.setdefault(row["kind"], []).append((turns, len(text), sizes[0], sizes[1]))
    for kind, found in sorted(kinds.items()):
        cells = [
            f"{fmean(each[part] for each in found):.1f}, {max(each[part] for each in found)}"
            if part == 0
            else f"{fmean(each[part] for each in found):.0f}, {max(each[part] for each in found)}"
            for part in range(4)
        ]
        yield f"| {kind} | {len(found)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

"""The games of each split, as rows of {train,val,test}.jsonl: a task and a variation of the package's.

The splits are the package's own. Rows have the gold path, as far as the goal; a game whose path does not end there, or takes
more turns than are allowed, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.core.progress import shown
from posttrain.environments.sciworld.engine import check_tasks
from posttrain.environments.sciworld.game import SciWorld
from posttrain.environments.sciworld.options import Options
from posttrain.environments.scripted import most_turns
from posttrain.tasks import SPLITS, no_files, read_options


def fetch(params: Params, directory: Path) -> None:
    """Put the rows into `directory`."""
    dataset, options = params.selected_dataset, read_options(params, Options)
    if not isinstance(dataset, GeneratedDataset):
        no_files(params, directory)
        return
    key = f"params.yaml: datasets.{params.dataset}"
    check_tasks(options.tasks, f"{key}.options.tasks")
    game = SciWorld(options.text)
    variations = {task: game.variations(task) for task in options.tasks}
    with atomic_directory(directory) as output:
        for split in SPLITS:
            count = getattr(dataset, split)
            left = {task: found[split] for task, found in variations.items()}
            games = shown(_games(game, left, options, dataset.seed), f"{split} games")
            rows = [{"id": f"{split}-{n}", **row} for n, row in enumerate(islice(games, count))]
            if len(rows) < count:
                raise UserError(
                    f"{key}: {split} asks for {count} games, and its tasks have {len(rows)} that the expert solves"
                )
            write_jsonl(output / f"{split}.jsonl", rows)


def _games(
    game: SciWorld, left: dict[str, list[int]], options: Options, seed: int
) -> Iterator[dict[str, Any]]:
    """Games of one task after the other, in an order by the seed, while there are some."""
    waiting = {
        task: iter(Random(f"{seed}/{task}").sample(found, len(found)))
        for task, found in left.items()
    }
    while waiting:
        for task in [*waiting]:
            row = None
            for variation in waiting[task]:
                row = _solved(game, task, variation, options)
                if row is not None:
                    yield row
                    break
            if row is None:
                del waiting[task]


def _solved(game: SciWorld, task: str, variation: int, options: Options) -> dict[str, Any] | None:
    """The row of a variation; None if the expert does not solve it within the turns."""
    path = game.gold_path(task, variation)
    question = game.begin(task, variation, path)
    for turn, action in enumerate(path[: options.turns], 1):
        outcome = game.step(action)
        if outcome.end == "goal":
            return {
                "kind": task,
                "seed": variation,
                "question": question,
                "turns": most_turns(turn, options.turns),
                "task": task,
                "text": options.text,
                "gold": path[:turn],
                "expert": path[0],
                "expert_turns": turn,
            }
        if outcome.end is not None:
            break
    return None

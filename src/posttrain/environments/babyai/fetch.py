"""The games of each split, as rows of {train,val,test}.jsonl: a level and a seed of minigrid's.

Rows have the expert's number of turns, its first action and its return; a game that it does not solve is left out. No two
rows, of one split or of two, have the same mission, grid and agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.environments.babyai.engine import check_levels
from posttrain.environments.babyai.game import BabyAI
from posttrain.environments.babyai.options import Options
from posttrain.environments.scripted import most_turns
from posttrain.environments.starts import play_expert
from posttrain.tasks import SPLITS, no_files, read_options

MISSES = 200  # seeds in a row that give no new game
_LONGEST = 200  # turns of the expert


def fetch(params: Params, directory: Path) -> None:
    """Put the rows into `directory`."""
    dataset, options = params.selected_dataset, read_options(params, Options)
    if not isinstance(dataset, GeneratedDataset):
        no_files(params, directory)
        return
    key = f"params.yaml: datasets.{params.dataset}.options.levels"
    check_levels(options.levels, key)
    games = _games(options, dataset.seed, key)
    with atomic_directory(directory) as output:
        for split in SPLITS:
            rows = (
                {"id": f"{split}-{number}", **next(games)}
                for number in range(getattr(dataset, split))
            )
            write_jsonl(output / f"{split}.jsonl", rows)


def _games(options: Options, seed: int, key: str) -> Iterator[dict[str, Any]]:
    """Games of one level after the other, each new."""
    game, random, seen, misses = BabyAI(), Random(seed), set[str](), 0
    while True:
        for level in options.levels:
            row = None
            while row is None:
                drawn = random.getrandbits(31)
                question = game.begin(level, drawn)
                layout = game.state_key()
                row = None if layout in seen else _solved(game, level, drawn, question, options)
                misses = 0 if row else misses + 1
                if misses > MISSES:
                    raise UserError(
                        f"{key}: {level}: no new game that the expert solves in {MISSES} seeds"
                    )
            seen.add(layout)
            yield row


def _solved(
    game: BabyAI, level: str, seed: int, question: str, options: Options
) -> dict[str, Any] | None:
    """The row of the game that has begun; None if the expert does not solve it within the turns."""
    played = play_expert(game, options.turns or _LONGEST)
    if played is None or played.end != "goal":
        return None
    return {
        "kind": level,
        "seed": seed,
        "question": question,
        "turns": most_turns(played.turns, options.turns),
        "level": level,
        "expert": played.first,
        "expert_turns": played.turns,
        "expert_return": round(played.earned, 6),
    }

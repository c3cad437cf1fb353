"""The games of each split, as rows of {train,val,test}.jsonl.

A row has all of its game: `recipes`, `groups`, `base` and `goal`, and of the expert the number of `expert_turns` and its
first action. No goal, and so no set of recipes that a goal needs, is in two rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.environments.scripted import most_turns
from posttrain.environments.textcraft import datapack, sample
from posttrain.environments.textcraft.options import Options
from posttrain.environments.textcraft.planner import Planner
from posttrain.environments.textcraft.recipes import World, page, to_row
from posttrain.tasks import SPLITS, no_files, read_options

LONGEST = 4  # turns of the expert, times the depth, in a generated game


def fetch(params: Params, directory: Path) -> None:
    """Put the rows into `directory`."""
    dataset, options = params.selected_dataset, read_options(params, Options)
    if not isinstance(dataset, GeneratedDataset):
        no_files(params, directory)
        return
    counts = {split: getattr(dataset, split) for split in SPLITS}
    if options.recipes is None:
        games = _generated(options, dataset.seed, sum(counts.values()))
    else:
        key = f"params.yaml: datasets.{params.dataset}"
        games = _stored(options, options.recipes, key, dataset.seed, sum(counts.values()))
    with atomic_directory(directory) as output:
        for split, count in counts.items():
            rows = (
                _row(f"{split}-{number}", dataset.seed, options, *next(games))
                for number in range(count)
            )
            write_jsonl(output / f"{split}.jsonl", rows)


def _generated(options: Options, seed: int, count: int) -> Iterator[tuple[World, str, int]]:
    fewest, most = options.depth
    for number, goal in enumerate(sample.goals(seed, count)):
        depth = fewest + number % (most - fewest + 1)
        random = Random(f"{seed}/{goal}")
        while True:
            world = sample.generate_world(random, goal, depth, options.distractors)
            if len([*Planner(world).plan(goal, {})]) <= LONGEST * depth:
                break
        yield world, goal, depth


def _stored(
    options: Options, folder: str, key: str, seed: int, count: int
) -> Iterator[tuple[World, str, int]]:
    world = datapack.read_world(folder, f"{key}.options.recipes")
    found = datapack.goals(world, *options.depth)
    if len(found) < count:
        raise UserError(
            f"{key}: train, val and test ask for {count} games, and {folder} has {len(found)} goals of depth "
            f"{options.depth[0]} to {options.depth[1]}"
        )
    for goal, depth in Random(seed).sample(found, count):
        random = Random(f"{seed}/{goal}")
        yield datapack.page_of(world, goal, options.distractors, random), goal, depth


def _row(
    name: str, seed: int, options: Options, world: World, goal: str, depth: int
) -> dict[str, Any]:
    plan = [*Planner(world).plan(goal, {})]
    return {
        "id": name,
        "kind": f"depth {depth}",
        "seed": seed,
        "question": page(world, goal),
        "turns": most_turns(len(plan), options.turns),
        "goal": goal,
        "expert": plan[0],
        "expert_turns": len(plan),
        **to_row(world),
    }

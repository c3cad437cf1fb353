"""The games of each split, as rows of {train,val,test}.jsonl.

A row has all of its game: the `problem` in PDDL and the `task` in words; and of the expert the number of `expert_turns` and
its first action. No two rows have the same problem, and no two generated ones the same first observation.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, write_jsonl
from posttrain.core.params import GeneratedDataset, Params
from posttrain.environments.alfworld import gamefiles
from posttrain.environments.alfworld.engine import check_installed
from posttrain.environments.alfworld.game import ALFWorld
from posttrain.environments.alfworld.options import Options
from posttrain.environments.alfworld.problem import draw, write
from posttrain.environments.scripted import most_turns
from posttrain.environments.starts import play_expert
from posttrain.tasks import SPLITS, no_files, read_options

MISSES = 200  # draws in a row that give no new game
_LONGEST = 100  # turns of the expert


def fetch(params: Params, directory: Path) -> None:
    """Put the rows into `directory`."""
    dataset, options = params.selected_dataset, read_options(params, Options)
    if not isinstance(dataset, GeneratedDataset):
        no_files(params, directory)
        return
    key = f"params.yaml: datasets.{params.dataset}.options"
    counts = {split: getattr(dataset, split) for split in SPLITS}
    check_installed()
    maker = _Maker(options, dataset.seed, key)
    if options.games is None:
        generated = maker.generated()
        games = dict.fromkeys(SPLITS, generated)
    else:
        found = gamefiles.find(
            options.games, f"{key}.games", [*options.kinds], counts, dataset.seed
        )
        games = {split: maker.stored(found[split]) for split in SPLITS}
    with atomic_directory(directory) as output:
        for split, number in counts.items():
            rows = ({"id": f"{split}-{n}", **next(games[split])} for n in range(number))
            write_jsonl(output / f"{split}.jsonl", rows)


class _Maker:
    def __init__(self, options: Options, seed: int, key: str) -> None:
        self.options, self.seed, self.key = options, seed, key
        self.game = ALFWorld(options.expert == "search")
        self.seen = set[str]()

    def generated(self) -> Iterator[dict[str, Any]]:
        """Games of one type after the other, each new."""
        options, random, misses = self.options, Random(self.seed), 0
        for number in count():
            kind, row = options.kinds[number % len(options.kinds)], None
            while row is None:
                seed = random.getrandbits(31)
                game = draw(Random(seed), kind, options.receptacles, options.distractors)
                row = self._row(kind, seed, write(game), game.task, new_question=True)
                misses = 0 if row else misses + 1
                if misses > MISSES:
                    raise UserError(
                        f"{self.key}: {kind}: no new game in {MISSES} draws; more receptacles make more games"
                    )
            yield row

    def stored(self, folders: list[Path]) -> Iterator[dict[str, Any]]:
        """The games of these folders."""
        for folder in folders:
            game = gamefiles.read(folder)
            try:
                row = self._row(game.kind, self.seed, game.problem, game.task, new_question=False)
            # The translation to the planner's form says in many ways that it cannot read a problem or that none solves it.
            except (Exception, SystemExit) as error:
                raise UserError(
                    f"{folder}/game.tw-pddl: not a problem of alfworld that can be solved ({error!r})"
                ) from error
            if row is None:
                raise UserError(
                    f"{folder}/game.tw-pddl: the expert does not solve it, it is solved at the start, or it is there twice"
                )
            yield {**row, "name": game.name}

    def _row(
        self, kind: str, seed: int, problem: str, task: str, new_question: bool
    ) -> dict[str, Any] | None:
        """The row of a game; None if it was there before, is won at the start, or is not solved within the turns."""
        if problem in self.seen:
            return None
        question = self.game.begin(problem, task)
        if self.game.over or (new_question and question in self.seen):
            return None
        played = play_expert(self.game, self.options.turns or _LONGEST)
        if played is None or played.end != "goal":
            return None
        self.seen |= {problem, question}
        return {
            "kind": kind,
            "seed": seed,
            "question": question,
            "turns": most_turns(played.turns, self.options.turns),
            "expert": played.first,
            "expert_turns": played.turns,
            "task": task,
            "problem": problem,
        }

"""Games of a folder as the data of alfworld has them: SPLIT/.../game.tw-pddl beside traj_data.json.

Of a game file are read its problem, and the sentence of its task. The domain and the texts are those of the installed
package, so that games of every version of the data read the same; a file's own are rules that would be executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.inputs import named_folder
from posttrain.environments.alfworld.problem import KINDS

FOLDERS = {"train": "train", "val": "valid_seen", "test": "valid_unseen"}
_TASK = re.compile(r"Your task is to: ([^\"\\]+?)\.?(?:\"|\\n)")
_PLAIN = re.compile(r"[A-Za-z0-9 ,.'-]+")
_LEFT_OUT = ("movable", "Sliced")  # tasks that alfworld does not play as text


@dataclass(frozen=True, slots=True)
class Stored:
    """A game of a file. kind: of KINDS. task: in words."""

    name: str
    kind: str
    problem: str
    task: str


def find(
    path: str, key: str, kinds: list[str], counts: dict[str, int], seed: int
) -> dict[str, list[Path]]:
    """Folders of games of each split, drawn by the seed; `UserError` if there are too few of these kinds."""
    folder, found = named_folder(path, key), dict[str, list[Path]]()
    for split, count in counts.items():
        here = folder / FOLDERS[split]
        games = [
            file.parent
            for file in sorted(here.glob("**/game.tw-pddl"))
            if not any(word in str(file.relative_to(here)) for word in _LEFT_OUT)
            and (file.parent / "traj_data.json").is_file()
            and kind_of(file.parent) in kinds
        ]
        if len(games) < count:
            raise UserError(
                f"{key}: {here}: {count} games asked for, and it has {len(games)} of these kinds (game.tw-pddl beside "
                "traj_data.json)"
            )
        found[split] = Random(f"{seed}/{split}").sample(games, count)
    return found


def kind_of(game: Path) -> str:
    """The type of the task of a game's folder; `UserError` if its file has none."""
    values = read_json(game / "traj_data.json")
    kind = values.get("task_type") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise UserError(f"{game / 'traj_data.json'}: has no task_type")
    return kind


def read(game: Path) -> Stored:
    """The game of a folder; `UserError` if a file is not one."""
    file, kind = game / "game.tw-pddl", kind_of(game)
    if kind not in KINDS:
        raise UserError(
            f"{game / 'traj_data.json'}: task_type {kind!r} is not one of {', '.join(KINDS)}"
        )
    values = read_json(file)
    problem = values.get("pddl_problem") if isinstance(values, dict) else None
    told = values.get("grammar") if isinstance(values, dict) else None
    if not isinstance(problem, str) or not isinstance(told, str):
        raise UserError(f"{file}: not a game of alfworld, which has pddl_problem and grammar")
    task = _TASK.search(told)
    if task is None or _PLAIN.fullmatch(task[1]) is None:
        raise UserError(f"{file}: its grammar has no plain sentence 'Your task is to: ...'")
    plain = "\n".join(" ".join(line.split()) for line in problem.splitlines() if line.strip())
    return Stored(game.name, kind, plain, task[1])

"""Play the episodes that SFT learns from: of the environment's expert, after random actions, as far as they end at the goal.

python stages/demonstrations.py

Writes data/demonstrations: train.jsonl and val.jsonl, with an episode of each start that has one, and settings.json, what
later stages play by. A task of one turn has gold answers in their place: the files are empty.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_jsonl, write_json, write_jsonl
from posttrain.core.params import Params
from posttrain.core.stage import run
from posttrain.tasks import Example, Task, get_task

if TYPE_CHECKING:
    from posttrain.rollouts.episode import Episode

EXAMPLES, OUTPUT = Path("data/examples"), Path("data/demonstrations")
SPLITS = ("train", "val")  # val: for the temperature
WITHOUT_EFFECT = {"slots", "seconds"}
EXPERT = "expert"
DIGITS = 6


def main(params: Params) -> None:
    task = get_task(*params.tasks)
    metrics: dict[str, Any] = {}
    with atomic_directory(OUTPUT) as directory:
        for split in SPLITS:
            records: list[dict[str, Any]] = []
            if task.open is not None:
                examples = read_jsonl(EXAMPLES / f"{split}.jsonl")
                records, metrics[split] = demonstrate(task, params, examples)
                if not records:
                    raise UserError(
                        f"no episode of the expert ends at the goal, of {len(examples)} {split} starts"
                    )
            write_jsonl(directory / f"{split}.jsonl", records)
        settings = {
            "episodes": params.episodes.model_dump(exclude=WITHOUT_EFFECT),
            "options": params.selected_dataset.options,
        }
        write_json(directory / "settings.json", settings if task.open is not None else {})
    write_json("metrics/demonstrations.json", metrics)


def demonstrate(
    task: Task, params: Params, examples: Sequence[Example]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """An episode of each start that ends at the goal, where one of its `attempts` does, and statistics.

    starts: all of them. demonstrated: those with an episode. success: share of the episodes played that ended at the goal.
    turns, off_path: of the episodes kept, their mean length, and the share of their turns that were random.
    """
    from posttrain.rollouts.play import off_path, play  # imports torch

    settings = params.episodes
    player = off_path(settings.demonstrations.off_path, settings.form)
    left, played = [*examples], 0
    found: dict[str, Episode] = {}
    for attempt in range(settings.demonstrations.attempts):
        episodes = play(player, task, params, [(example, attempt) for example in left])
        played += len(episodes)
        found |= {episode.id: episode for episode in episodes if episode.end == "goal"}
        left = [example for example in left if example["id"] not in found]
    kept = [found[example["id"]] for example in examples if example["id"] in found]
    turns = sum(len(episode.steps) for episode in kept)
    explored = sum(step.explored for episode in kept for step in episode.steps)
    return [episode.record(EXPERT) for episode in kept], {
        "starts": len(examples),
        "demonstrated": len(kept),
        "success": round(len(kept) / played, DIGITS),
        "turns": round(turns / max(1, len(kept)), DIGITS),
        "off_path": round(explored / max(1, turns), DIGITS),
    }


if __name__ == "__main__":
    run(main)

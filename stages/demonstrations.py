"""Play the episodes that SFT learns from: of the environment's expert, after random actions, as far as they end at the goal.

python stages/demonstrations.py

Writes data/demonstrations: train.jsonl and val.jsonl, with an episode of each start that has one, and settings.json, what
later stages play by. A task of one turn has gold answers in their place: the files are empty. In a mixture of both the
expert of a question gives its gold answer.
"""

from collections import Counter
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
                for part, found in {"": metrics[split], **metrics[split].get("parts", {})}.items():
                    if not found["demonstrated"]:
                        raise UserError(
                            f"no episode of the expert ends at the goal, of {found['starts']} {split} starts"
                            + (f" of {part}" if part else "")
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
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """An episode of each start that ends at the goal, where one of its `attempts` does, and statistics.

    starts: all of them. demonstrated: those with an episode. success: share of the episodes played that ended at the goal.
    turns, off_path: of the episodes kept, their mean length, and the share of their turns that were random. parts: the same
    of each part of a mixture.
    """
    from posttrain.rollouts.play import off_path, play  # imports torch

    settings = params.episodes
    player = off_path(settings.demonstrations.off_path, settings.form)
    left, played = [*examples], Counter[str]()
    found: dict[str, Episode] = {}
    for attempt in range(settings.demonstrations.attempts):
        episodes = play(player, task, params, [(example, attempt) for example in left])
        played.update(episode.id for episode in episodes)
        found |= {episode.id: episode for episode in episodes if episode.end == "goal"}
        left = [example for example in left if example["id"] not in found]
    kept = [found[example["id"]] for example in examples if example["id"] in found]

    def told(starts: Sequence[Example]) -> dict[str, Any]:
        own = [found[start["id"]] for start in starts if start["id"] in found]
        turns = sum(len(episode.steps) for episode in own)
        explored = sum(step.explored for episode in own for step in episode.steps)
        return {
            "starts": len(starts),
            "demonstrated": len(own),
            "success": round(len(own) / sum(played[start["id"]] for start in starts), DIGITS),
            "turns": round(turns / max(1, len(own)), DIGITS),
            "off_path": round(explored / max(1, turns), DIGITS),
        }

    of = {part: [e for e in examples if e["part"] == part] for part in params.parts}
    parts = {"parts": {part: told(starts) for part, starts in of.items()}} if of else {}
    return [episode.record(EXPERT) for episode in kept], {**told(examples), **parts}


if __name__ == "__main__":
    run(main)

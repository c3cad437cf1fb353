"""Put the best selector and the best generator where the artifacts of dvc.yaml name them.

python stages/best.py

Best by accuracy on validation, over methods and seeds; of equals the first in the order of params.yaml, SFT before all.
The test questions have no say, so the figures of the comparison stay fair.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.params import Params
from posttrain.core.stage import run

FAMILIES = {
    "selector": ("metrics/evaluate", "accuracy"),
    "generator": ("metrics/evaluate_generator", "execution_accuracy"),
}


def main(params: Params) -> None:
    policies: dict[str, list[str]] = {
        "selector": ["sft", *params.rl.selector.methods],
        "generator": ["sft", *params.rl.generator.methods],
    }
    chosen: dict[str, dict[str, str | int | float]] = {}
    for family, (folder, figure) in FAMILIES.items():
        policy, seed, accuracy = best(Path(folder), figure, policies[family], params.seeds)
        model = f"sft_{family}/{seed}" if policy == "sft" else f"rl_{family}/{policy}-{seed}"
        with atomic_directory(Path("models/best") / family) as output:
            shutil.copytree(Path("models") / model, output, dirs_exist_ok=True)
        chosen[family] = {"policy": policy, "seed": seed, "val_accuracy": accuracy}
    write_json("metrics/best.json", chosen)


def best(
    folder: Path, figure: str, policies: Sequence[str], seeds: Sequence[int]
) -> tuple[str, int, float]:
    """Policy, seed and validation accuracy of the best of all evaluated models."""
    found: list[tuple[str, int, float]] = []
    for policy in policies:
        for seed in seeds:
            path = folder / f"{policy}-{seed}.json"
            try:
                found.append((policy, seed, read_json(path)["val"][figure]))
            except (KeyError, TypeError) as error:
                raise UserError(f"{path}: no val.{figure}; run dvc repro") from error
    return max(found, key=lambda one: one[2])


if __name__ == "__main__":
    run(main)

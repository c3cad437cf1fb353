"""Copy the best selector and the best generator to models/best, for the artifacts of dvc.yaml.

python stages/best.py

The best has the highest validation accuracy over methods and seeds; of ties, the first in the order of params.yaml. It may
be one without RL, SFT or the control, and is called so. Test questions play no part, so the comparison on them stays fair.
Of a family that was not trained, the reason takes the place of the model.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from posttrain.core.errors import UserError
from posttrain.core.files import atomic_directory, read_json, write_json
from posttrain.core.not_trained import write_not_trained
from posttrain.core.params import CONTROL, Params
from posttrain.core.stage import run
from posttrain.report.findings import percent

MEASURES = {"selector": "accuracy", "generator": "execution_accuracy"}


def main(params: Params) -> None:
    chosen: dict[str, dict[str, str | int | float]] = {}
    for family, measure in MEASURES.items():
        policies = [policy for policy in getattr(params, family).policies if policy != "base"]
        metrics = Path("metrics") / f"{family}_evaluate"
        found = best(metrics, measure, policies, params.seeds)
        if found is None:
            reason = read_json(metrics / policies[0] / f"{params.seeds[0]}.json")["not_trained"]
            write_not_trained(Path("models/best") / family, reason)
            chosen[family] = {"not_trained": reason}
            continue
        policy, seed, accuracy = found
        with atomic_directory(Path("models/best") / family) as output:
            model = Path("models") / family / policy / str(seed)
            shutil.copytree(model, output, dirs_exist_ok=True)
        chosen[family] = {"policy": policy, "seed": seed, "val_accuracy": accuracy}
        without = " (SFT continued, without RL)" if policy == CONTROL else ""
        print(
            f"models/best/{family}: {policy}{without}, seed {seed}, {percent(accuracy)} right on validation"
        )
    write_json("metrics/best.json", chosen)


def best(
    folder: Path, measure: str, policies: Sequence[str], seeds: Sequence[int]
) -> tuple[str, int, float] | None:
    """Policy, seed and validation accuracy of the best evaluated model; None if none was trained."""
    evaluated: list[tuple[str, int, float]] = []
    for policy in policies:
        for seed in seeds:
            path = folder / policy / f"{seed}.json"
            metrics = read_json(path)
            try:
                if "not_trained" not in metrics:
                    evaluated.append((policy, seed, metrics["val"][measure]))
            except (KeyError, TypeError) as error:
                raise UserError(f"{path}: no val.{measure}; run dvc repro") from error
    return max(evaluated, key=lambda one: one[2], default=None)


if __name__ == "__main__":
    run(main)

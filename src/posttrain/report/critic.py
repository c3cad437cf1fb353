"""Whether PPO's critic explains anything, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posttrain.report.curves import read_curve

CRITIC = "train/explained_variance"


def critic_sentences(folder: Path, seeds: Sequence[int]) -> list[str]:
    """What the explained variance of PPO's critic says, for the curves in folder/ppo/SEED; nothing without them."""
    paths = [folder / "ppo" / str(seed) / f"{CRITIC}.tsv" for seed in seeds]
    means = [float(read_curve(path)[1].mean()) for path in paths if path.is_file()]
    if not means:
        return []
    mean = sum(means) / len(means)
    over = "" if len(means) == 1 else f" and {len(means)} seeds"
    told = f"PPO's critic explains {100 * mean:.1f} % of the variance of returns, on average over the steps{over}"
    if mean > 0:
        return [f"{told}."]
    return [f"{told}: PPO is here REINFORCE with a whitened advantage."]

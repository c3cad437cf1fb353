"""Whether RL began from an SFT that still improved, as a sentence for the findings.

A training with `patience` was at its plateau if its last `patience` validations were not better than the best before them,
so that it ended early or had no more to gain (`core.loop.Best.plateau`). One that used up its epochs before may have been
improving still. A validation asks a few hundred questions, so single ones move by points of noise; the rule asks for
several in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from posttrain.core.curves import TRAINING
from posttrain.core.errors import UserError
from posttrain.core.files import read_json
from posttrain.core.params import FINE_TUNED
from posttrain.report.curves import read_curve
from posttrain.report.findings import SPACE, joined, percent

LAST = 3  # validations that are told of a training
# What decides which weights SFT keeps: the first of these curves that there is.
DECISIVE = (("val/execution_accuracy.tsv", "accuracy"), ("val/reward.tsv", "mean reward"))
UNKNOWN = (
    "a gain of RL may be one that more SFT would have brought: compare with SFT+, which had more."
)


def plateau_sentences(folder: Path, seeds: Sequence[int]) -> list[str]:
    """One sentence on the SFT of these seeds, whose curves are in `folder`/sft/SEED: where it stopped, or that it may not
    have been done, with its last validations.
    """
    ends = {seed: _ending(folder / FINE_TUNED / str(seed)) for seed in seeds}
    many = len(seeds) > 1
    undone = [seed for seed, (_, _, plateau) in ends.items() if plateau is False]
    if undone:
        return [
            f"SFT used up its epochs before its validation stopped rising ({_validations(folder, undone, many)}), so "
            f"RL began from a training that may still have been improving, and {UNKNOWN}"
        ]
    unwatched = [seed for seed, (_, _, plateau) in ends.items() if plateau is None]
    if unwatched:
        return [
            f"SFT took its epochs without a test of whether it still improved ({_validations(folder, unwatched, many)}), "
            f"and {UNKNOWN}"
        ]
    where = joined([f"{best:,} of {steps:,}" for steps, best, _ in ends.values()])
    return [
        f"SFT had stopped improving when RL began: its best validation was at step {where} "
        f"({_validations(folder, seeds, many)})."
    ]


def _ending(folder: Path) -> tuple[int, int, bool | None]:
    """Steps, best step and plateau of a training; `UserError` if the file does not tell them."""
    ending = read_json(folder / TRAINING)
    try:
        return int(ending["steps"]), int(ending["best_step"]), ending["plateau"]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / TRAINING}: no steps, best_step and plateau; run dvc repro"
        ) from error


def _validations(folder: Path, seeds: Sequence[int], named: bool) -> str:
    """`accuracy at the last validations 64.0, 66.0 and 67.0 % with seed 0; ...`; one seed of one is not named."""
    name, parts = "", []
    for seed in seeds:
        found = folder / FINE_TUNED / str(seed)
        file, name = next((one for one in DECISIVE if (found / one[0]).is_file()), DECISIVE[-1])
        _, values = read_curve(found / file)
        last = [percent(value).removesuffix(f"{SPACE}%") for value in values[1:][-LAST:].tolist()]
        parts.append(f"{joined(last)}{SPACE}%" + (f" with seed {seed}" if named else ""))
    return f"{name} at the last validations {'; '.join(parts)}"

"""Generated questions: a program of `posttrain.tasks.programs` in words, with shown and hidden cases."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from posttrain.tasks.ded.options import Options
from posttrain.tasks.programs import draw_distinct, draw_inputs

Row = dict[str, Any]


def generate(seed: int, sizes: Mapping[str, int], options: Options) -> dict[str, list[Row]]:
    """Rows of each split, with `id`, `question`, `program`, `shown` and `hidden`, which are pairs of input and output.

    No program is there twice. The hidden inputs of a question are distinct, and none of them is shown.
    """
    rng = Random(f"ded/{seed}")
    splits = {}
    for split, programs in draw_distinct(rng, options.steps, sizes).items():
        rows = []
        for number, program in enumerate(programs):
            inputs = draw_inputs(program.source, options.shown + options.hidden, rng)
            cases = [[line, program.output(line)] for line in inputs]
            rows.append(
                {
                    "id": f"ded-{split}-{number:05d}",
                    "question": program.told,
                    "program": program.text,
                    "shown": cases[: options.shown],
                    "hidden": cases[options.shown :],
                }
            )
        splits[split] = rows
    return splits

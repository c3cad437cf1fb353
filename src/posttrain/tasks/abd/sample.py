"""Generated questions: a program of `posttrain.tasks.programs` and its output for an input that is known."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from posttrain.tasks.programs import INPUTS, Program, draw_distinct, draw_input, draw_inputs

Row = dict[str, Any]


def generate(seed: int, sizes: Mapping[str, int], steps: int) -> dict[str, list[Row]]:
    """Rows of each split, with `id`, `question` (the program), `output` and `input`; no program is there twice.

    The output is never an answer itself, which with programs that sort, say, it would be.
    """
    rng = Random(f"abd/{seed}")
    splits = {}
    for split, programs in draw_distinct(rng, steps, sizes, _seldom_repeats).items():
        rows = []
        for number, program in enumerate(programs):
            line = draw_input(program.source, rng)
            while program.repeats(line):
                line = draw_input(program.source, rng)
            rows.append(
                {
                    "id": f"abd-{split}-{number:05d}",
                    "question": program.text,
                    "output": program.output(line),
                    "input": line,
                }
            )
        splits[split] = rows
    return splits


def _seldom_repeats(program: Program) -> bool:
    lines = draw_inputs(program.source, INPUTS, Random(program.text))
    return sum(map(program.repeats, lines)) <= INPUTS / 2

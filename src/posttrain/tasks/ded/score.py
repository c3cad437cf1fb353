"""The one scorer of programs: each hidden case is run in the sandbox, and its output is compared outside.

The program is the last ```python block of the text. It reads a case's input on stdin; its output is right if it is the
expected one, apart from spaces at the ends of lines and empty lines at the end. Where the example names a function to
`call`, the block is followed by a call with the literals on stdin, and the last line is compared as a Python value.

    correct         all hidden cases are right
    parts           all_cases; share_of_cases: that are right; program_valid: every case ends with status 0;
                    format_valid: one block, and nothing around it
    status          unparseable: no block, or over `MAX_CHARACTERS`; unscorable: the example has no hidden cases
    value, answer   the outputs, by which a majority is counted
    failure         of the cases that are not right, the first of `FAILURES` that one of them has

Left out: the style and the speed of programs within their limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks import Score
from posttrain.tasks.outputs import ENDS, calling, ended, same_text, same_value
from posttrain.tasks.sandbox import Limits, Result, run_all
from posttrain.tasks.texts import without_thoughts

FAILURES = ("unscorable", "unparseable", *ENDS)
PARTS = ("all_cases", "share_of_cases", "program_valid", "format_valid")
LIMITS = Limits(output_bytes=1 << 16)
MAX_CHARACTERS = 20_000
MAX_SHOWN = 200  # characters of the outputs that are stored

_BLOCK = re.compile(r"```python[ \t]*\n(.*?)```", re.DOTALL)

Example = Mapping[str, Any]


def score(text: str, example: Example) -> Score:
    """Score one answer to one example; any text gets a score, in the time that `LIMITS` gives each case."""
    return score_all([text], [example])[0]


def score_all(texts: Sequence[str], examples: Sequence[Example]) -> list[Score]:
    """`score` of each text as an answer to the example at its place; programs run side by side, equal ones once."""
    programs = [_program(text, example) for text, example in zip(texts, examples, strict=True)]
    inputs = [tuple(given for given, _ in example["hidden"]) for example in examples]
    wanted = zip(programs, inputs, strict=True)
    jobs = [*dict.fromkeys((program, given) for program, given in wanted if program and given)]
    results = dict(zip(jobs, run_all(jobs, LIMITS), strict=True)) if jobs else {}
    return [
        _score(text, example, results.get((program or "", given)))
        for text, example, program, given in zip(texts, examples, programs, inputs, strict=True)
    ]


def _program(text: str, example: Example) -> str | None:
    """The program that is run for a text; None if it has none."""
    for field in ("shown", "hidden"):
        if field not in example:
            raise UserError(f"example {example.get('id')!r} has no field {field!r}")
    blocks = _BLOCK.findall(without_thoughts(text)) if len(text) <= MAX_CHARACTERS else []
    if not blocks:
        return None
    return calling(blocks[-1], example["call"]) if example.get("call") else str(blocks[-1])


def _score(text: str, example: Example, results: Sequence[Result] | None) -> Score:
    expected = [output for _, output in example["hidden"]]
    if not expected or results is None:
        status = "unparseable" if expected else "unscorable"
        return Score(False, dict.fromkeys(PARTS, 0.0), status, quality={"format_valid": 0.0})
    equal = same_value if example.get("call") else same_text
    right = [
        result.status == "ok" and equal(result.stdout, output)
        for result, output in zip(results, expected, strict=True)
    ]
    form = float(_BLOCK.fullmatch(text.strip()) is not None and text.count("```") == 2)
    valid = float(all(result.status == "ok" for result in results))
    shown = "; ".join(" ".join(result.stdout.split()) for result in results)[:MAX_SHOWN]
    return Score(
        correct=all(right),
        parts={
            "all_cases": float(all(right)),
            "share_of_cases": sum(right) / len(right),
            "program_valid": valid,
            "format_valid": form,
        },
        value=shown,
        answer=shown,
        failure=_failure(results, right),
        quality={"format_valid": form},
    )


def _failure(results: Sequence[Result], right: Sequence[bool]) -> str | None:
    found = {ended(result) for result, fine in zip(results, right, strict=True) if not fine}
    return min(found, key=FAILURES.index) if found else None

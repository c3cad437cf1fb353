"""The one scorer of inputs: the program is run on the input in the sandbox, and its output compared outside.

The input is in the last <INPUT>...</INPUT> of the text. Any input counts that gives the output, not only the known one.

    correct         the program ends with status 0 and prints the output (a function: returns it, as a Python value)
    parts           same_output: correct; program_valid: the program ends with status 0; format_valid: one <INPUT> and
                    nothing around it
    status          unparseable: no input, or over `MAX_CHARACTERS`
    value, answer   the input
    failure         how the run ended, one of `posttrain.tasks.outputs.ENDS`
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.core.errors import UserError
from posttrain.tasks import Score
from posttrain.tasks.outputs import calling, ended, same_text, same_value
from posttrain.tasks.sandbox import Limits, Result, run_all
from posttrain.tasks.texts import without_thoughts

PARTS = ("same_output", "program_valid", "format_valid")
LIMITS = Limits(output_bytes=1 << 16)
MAX_CHARACTERS = 20_000

_INPUT = re.compile(r"<INPUT>((?:(?!<INPUT>).)*?)</INPUT>", re.DOTALL)

Example = Mapping[str, Any]


def score(text: str, example: Example) -> Score:
    """Score one answer to one example; any text gets a score, in the time that `LIMITS` gives the program."""
    return score_all([text], [example])[0]


def score_all(texts: Sequence[str], examples: Sequence[Example]) -> list[Score]:
    """`score` of each text as an answer to the example at its place; runs go side by side, equal ones once."""
    found = [_found(text) for text in texts]
    wanted: dict[str, dict[str, None]] = {}
    for given, example in zip(found, examples, strict=True):
        if given is not None:
            wanted.setdefault(_program(example), {})[_stdin(given, example)] = None
    jobs = [(program, [line]) for program, inputs in wanted.items() for line in inputs]
    results = run_all(jobs, LIMITS) if jobs else []
    by_job = {
        (program, line): result for (program, (line,)), (result,) in zip(jobs, results, strict=True)
    }
    return [
        _unparseable()
        if given is None
        else _score(text, given, example, by_job[_program(example), _stdin(given, example)])
        for text, given, example in zip(texts, found, examples, strict=True)
    ]


def _found(text: str) -> str | None:
    """The input that a text states."""
    inputs = _INPUT.findall(without_thoughts(text)) if len(text) <= MAX_CHARACTERS else []
    return inputs[-1].strip("\n") if inputs else None


def _program(example: Example) -> str:
    for field in ("question", "output"):
        if field not in example:
            raise UserError(f"example {example.get('id')!r} has no field {field!r}")
    call, program = example.get("call"), str(example["question"])
    return calling(program, call) if call else program


def _stdin(given: str, example: Example) -> str:
    """The input as the program reads it: for a function, as a tuple."""
    if not example.get("call"):
        return f"{given}\n"
    return f"({given.strip().rstrip(',')},)" if given.strip() else "()"


def _score(text: str, given: str, example: Example, result: Result) -> Score:
    equal = same_value if example.get("call") else same_text
    right = result.status == "ok" and equal(result.stdout, example["output"])
    form = float(_INPUT.fullmatch(text.strip()) is not None)
    return Score(
        correct=right,
        parts={
            "same_output": float(right),
            "program_valid": float(result.status == "ok"),
            "format_valid": form,
        },
        value=given,
        answer=given,
        failure=None if right else ended(result),
        quality={"format_valid": form},
    )


def _unparseable() -> Score:
    return Score(False, dict.fromkeys(PARTS, 0.0), "unparseable", quality={"format_valid": 0.0})

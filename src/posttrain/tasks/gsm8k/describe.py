"""The report's line on how answers are read."""

from __future__ import annotations

from posttrain.core.params import Params
from posttrain.tasks import read_options
from posttrain.tasks.gsm8k.options import Options


def describe(params: Params) -> dict[str, str]:
    """One line, `answers`."""
    return {"answers": f"annotations: {read_options(params, Options).annotations}"}

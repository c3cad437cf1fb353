"""The report's line on the pages that models read."""

from __future__ import annotations

from posttrain.core.params import Params


def describe(params: Params) -> dict[str, str]:
    """One line, `page`."""
    return {"page": f"context {params.examples.context}, operands as {params.operands}"}

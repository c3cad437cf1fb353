"""The options of this task in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from posttrain.core.schema import Section


class Options(Section):
    """steps: the most steps of a generated program."""

    steps: Annotated[int, Field(ge=1, le=8)] = 3

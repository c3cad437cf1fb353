"""The options of this task in a data set's entry of params.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from posttrain.core.schema import Section


class Options(Section):
    """Of generated questions: the most steps of a program, and how many cases are shown and hidden."""

    steps: Annotated[int, Field(ge=1, le=8)] = 3
    shown: Annotated[int, Field(ge=0, le=8)] = 2
    hidden: Annotated[int, Field(ge=1, le=8)] = 4

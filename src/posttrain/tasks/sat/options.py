"""The options of this task in a data set's entry of params.yaml."""

from __future__ import annotations

from math import comb
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from posttrain.core.params import GeneratedDataset, Params
from posttrain.core.schema import Positive, Rate, Section
from posttrain.tasks import read_options
from posttrain.tasks.sat.formula import LARGEST, Operators

Share = Annotated[float, Field(gt=0, le=1)]


class FromFiles(Section):
    """operators: between literals and clauses, or, and, not | ∨, ∧, ¬."""

    operators: Operators = "words"


class Options(FromFiles):
    """How formulas are generated.

    k: literals per clause. variables: fewest and most. ratio: clauses per variable; their number is rounded down. share:
    least and largest share of the assignments that satisfy. levels: steps of equal ratio between these two.
    """

    variables: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    k: Positive
    ratio: Rate
    share: Annotated[list[Share], Field(min_length=2, max_length=2)]
    levels: Annotated[int, Field(ge=1, le=100)]

    @field_validator("variables")
    @classmethod
    def _enumerable(cls, found: list[int]) -> list[int]:
        if found[0] > found[1]:
            raise ValueError("must be [fewest, most]")
        if found[1] > LARGEST:
            raise ValueError(f"at most {LARGEST}, because all assignments are tried")
        return found

    @field_validator("k")
    @classmethod
    def _fits(cls, found: int, info: ValidationInfo) -> int:
        fewest = info.data.get("variables", [found])[0]
        if found > fewest:
            raise ValueError(f"a clause cannot have more literals than {fewest} variables")
        return found

    @field_validator("ratio")
    @classmethod
    def _distinct_clauses(cls, found: float, info: ValidationInfo) -> float:
        if not {"variables", "k"} <= info.data.keys():
            return found
        k = info.data["k"]
        for variables in info.data["variables"]:
            clauses, most = int(found * variables), comb(variables, k) * 2**k
            if not 1 <= clauses <= most:
                raise ValueError(
                    f"makes {clauses} clauses of {variables} variables; there must be 1 to {most}"
                )
        return found

    @field_validator("share")
    @classmethod
    def _ascends(cls, found: list[float]) -> list[float]:
        if found[0] >= found[1]:
            raise ValueError("must be [least, largest]")
        return found


def operators_of(params: Params) -> Operators:
    """How formulas are written."""
    generated = isinstance(params.selected_dataset, GeneratedDataset)
    return read_options(params, Options if generated else FromFiles).operators

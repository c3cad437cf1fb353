"""The report's line on how formulas are made."""

from __future__ import annotations

from posttrain.core.params import GeneratedDataset, Params
from posttrain.tasks import read_options
from posttrain.tasks.sat.options import Options


def describe(params: Params) -> dict[str, str]:
    """One line, `formulas`; none for formulas from files."""
    if not isinstance(params.selected_dataset, GeneratedDataset):
        return {}
    options = read_options(params, Options)
    (fewest, most), (least, largest) = options.variables, options.share
    return {
        "formulas": f"{options.k}-SAT, {fewest} to {most} variables, {options.ratio} clauses per variable, not planted; "
        f"{least:.2g} to {largest:.2g} of the assignments satisfy, in {options.levels} levels"
    }

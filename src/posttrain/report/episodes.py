"""The measures of greedy episodes on the test starts as a table, from the summaries of an evaluation in an environment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posttrain.core.files import read_json
from posttrain.report.compare import SPLIT, Comparison
from posttrain.report.findings import label
from posttrain.report.tables import table

SHARES = {
    "invalid": "turns invalid, %",
    "cut": "turns cut off, %",
    "limit": "end: limit, %",
    "error": "end: error, %",
}


def episodes_section(directory: Path, comparison: Comparison) -> dict[str, str]:
    """`Episodes` and its Markdown, means over seeds, if `directory`/POLICY/SEED/summary.json tells of episodes."""
    rows = []
    for policy in comparison.results:
        files = [directory / policy / str(seed) / "summary.json" for seed in comparison.seeds]
        found = [read_json(file)[SPLIT].get("episodes") for file in files if file.is_file()]
        if len(found) < len(files) or None in found:
            return {}
        values = [one["values"] for one in found]

        def mean(name: str, values: list[dict[str, float]] = values) -> float:
            return float(np.mean([one.get(name, 0.0) for one in values]))

        shares = [f"{100 * mean(name):.1f}" for name in SHARES]
        rows.append([label(policy), f"{mean('return'):.2f}", f"{mean('turns'):.1f}", *shares])
    heads = ["greedy episodes", "return", "turns", *SHARES.values()]
    note = "Episodes with an error of the environment are in no other mean. `docs/comparison.md` says what the columns are."
    return {"Episodes": f"{table(heads, rows)}\n\n{note}"}

"""Growth of the stages' time and memory with the number of examples.

    python benchmarks/growth.py [--dataset sample] [--examples 500] [--factors 1 2 4 8] [--training] [--rounds 1]

For each factor, a copy of the project in a temporary folder runs the data stages on a generated data set of factor *
examples training questions, an eighth as many for validation and a quarter for test; with --training it also runs
selector_sft and its evaluation. Seconds (without imports) and peak memory come from logs/times.jsonl; of several rounds
the fastest counts. The table also shows the line a + b * examples that fits the seconds best: the start-up a, the time b
per 1,000 examples, and the largest deviation from the line in percent. Its last column is the growth of memory from the
smallest factor to the largest.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from posttrain.core.cost import TIMES
from posttrain.core.files import read_jsonl

ROOT = Path(__file__).resolve().parent.parent
CODE = (("code",),)  # needed by the others, but reads no examples
DATA = (("fetch",), ("audit",), ("examples",), ("pools",))
TRAINING = (("base",), ("selector_sft", "0"), ("selector_evaluate", "sft", "0"))
PARTS = ("stages", "src", "pretrain", "params.yaml")

Cell = tuple[float, int]  # seconds, MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--dataset", default="sample", help="a generated data set of params.yaml")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--factors", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    if len(set(options.factors)) < 3:
        parser.error("argument --factors: three or more are needed, as two are always on a line")
    stages = DATA + (TRAINING if options.training else ())
    measured: dict[int, dict[str, Cell]] = {}
    for _ in range(options.rounds):
        for factor in options.factors:
            with tempfile.TemporaryDirectory() as folder:
                found = run(Path(folder), options.dataset, factor * options.examples, stages)
            before = measured.setdefault(factor, found)
            measured[factor] = {name: min(found[name], before[name]) for name in found}
    print(table(measured, options.examples))


def run(
    project: Path, dataset: str, examples: int, stages: Sequence[Sequence[str]]
) -> dict[str, Cell]:
    """Seconds and peak memory of each stage on `examples` training questions."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, project / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project / part)
    choose(project / "params.yaml", dataset, examples)
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    for name, *arguments in (*CODE, *stages):
        command = [sys.executable, f"stages/{name}.py", *arguments]
        ended = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True
        )
        if ended.returncode:
            sys.exit(f"growth: {' '.join(command)}: {ended.stderr.strip().splitlines()[-1]}")
    return {
        line["stage"]: (line["seconds"], line["peak_mib"])
        for line in read_jsonl(project / TIMES)
        if (line["stage"],) not in CODE
    }


def choose(path: Path, dataset: str, examples: int) -> None:
    yaml = YAML()
    params: Any = yaml.load(path)
    params["dataset"] = dataset
    sizes = {"train": examples, "val": max(8, examples // 8), "test": max(8, examples // 4)}
    params["datasets"][dataset].update(sizes)
    yaml.dump(params, path)


def table(measured: Mapping[int, Mapping[str, Cell]], examples: int) -> str:
    """Markdown table of the seconds and MiB of each stage by number of training examples, and their growth."""
    factors = sorted(measured)
    sizes = [factor * examples for factor in factors]
    heads = ["stage: seconds, MiB", *(f"{size:,}" for size in sizes)]
    heads += ["start-up", "per 1,000", "linear within", "memory"]
    rows = [heads, ["---"] * len(heads)]
    for stage in measured[factors[0]]:
        seconds, peaks = zip(*(measured[factor][stage] for factor in factors), strict=True)
        start, slope, off = fit_line(sizes, seconds)
        cells = [f"{one:.2f} s, {peak}" for one, peak in zip(seconds, peaks, strict=True)]
        growth = f"{peaks[-1] - peaks[0]:+} ({peaks[-1] / peaks[0] - 1:+.0%})"
        rows.append(
            [stage, *cells, f"{start:.2f} s", f"{1000 * slope:.2f} s", f"{off:.0%}", growth]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def fit_line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float, float]:
    """(a, b, off) of the least-squares line a + b * size; off is the largest relative deviation from it."""
    slope, start = np.polyfit(sizes, seconds, 1)
    line = start + slope * np.array(sizes)
    return float(start), float(slope), float((np.abs(seconds - line) / line).max())


if __name__ == "__main__":
    main()

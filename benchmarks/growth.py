"""How time and memory of the stages grow with the number of examples.

    python benchmarks/growth.py [--dataset sample] [--examples 500] [--factors 1 2 4 8] [--training] [--rounds 1]

A copy of the project in a temporary folder runs the data stages on a generated data set of `examples` training
questions (an eighth of that for validation, a quarter for test) times each factor; with --training also sft_selector
and its evaluation. Seconds (without imports) and peak memory are those that the stages note by themselves in
logs/times.jsonl. `growth` is the time per example at the largest factor over that at the smallest: 1.0 is linear.
Of several rounds the fastest counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from posttrain.files import read_jsonl
from posttrain.stage import TIMES

ROOT = Path(__file__).resolve().parent.parent
DATA = (("fetch",), ("audit",), ("prepare",), ("candidates",), ("rewards",))
TRAINING = (("base",), ("sft_selector", "0"), ("evaluate", "sft", "0"))
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
    for name, *arguments in stages:
        command = [sys.executable, f"stages/{name}.py", *arguments]
        ended = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True
        )
        if ended.returncode:
            sys.exit(f"growth: {' '.join(command)}: {ended.stderr.strip().splitlines()[-1]}")
    return {
        line["stage"]: (line["seconds"], line["peak_mib"]) for line in read_jsonl(project / TIMES)
    }


def choose(path: Path, dataset: str, examples: int) -> None:
    yaml = YAML()
    params: Any = yaml.load(path)
    params["dataset"] = dataset
    sizes = {"train": examples, "val": max(8, examples // 8), "test": max(8, examples // 4)}
    params["datasets"][dataset].update(sizes)
    yaml.dump(params, path)


def table(measured: dict[int, dict[str, Cell]], examples: int) -> str:
    """Markdown: seconds and MiB of each stage by number of training examples."""
    factors = sorted(measured)
    heads = " | ".join(f"{factor * examples:,}" for factor in factors)
    rows = [f"| stage: seconds, MiB | {heads} | growth |", "|---" * (len(factors) + 2) + "|"]
    for stage in measured[factors[0]]:
        cells = [measured[factor][stage] for factor in factors]
        first, last = cells[0][0] / factors[0], cells[-1][0] / factors[-1]
        shown = " | ".join(f"{seconds:.2f} s, {peak}" for seconds, peak in cells)
        rows.append(f"| {stage} | {shown} | {last / max(first, 1e-9):.2f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()

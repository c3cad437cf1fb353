"""The cost of the stages on this machine, and the accuracy of the policies against the cost of their training.

    python -m posttrain.report.cost

Each stage adds a line to logs/times.jsonl when it has run (`posttrain.core.stage`): wall-clock seconds, peak memory,
and the tokens of all forward passes of its models, pads included. Times differ from run to run, so they are outside
DVC's outputs. If a training was killed and resumed, only the part after the kill is counted.

The first table has the last run of each stage for the data set, model and seeds of params.yaml; of a training, the run
that made the model that is there now. Another has for each
policy its test accuracy and expected reward, and the seconds and tokens of its training per seed, SFT included. A
policy is dominated if another has at least its accuracy and its expected reward, was trained in no more time, and is
better in one of the three. This compares the measured values; their intervals are in logs/cost-FAMILY.png.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from posttrain.core.cost import TIMES, model_of
from posttrain.core.errors import UserError
from posttrain.core.files import hash_path, read_jsonl, read_text
from posttrain.core.params import load_params
from posttrain.report.compare import Estimate
from posttrain.report.findings import joined, label
from posttrain.report.pareto import dominated
from posttrain.report.plots import plot_cost
from posttrain.report.tables import table

FAMILIES = ("selector", "generator")
DOMINATED = (
    "Dominated by: a policy with at least this accuracy and expected reward, trained in no more time, and better in one of "
    "the three."
)
ABSENT = "their models are not here, or were not trained here; `dvc repro` trains what is missing."
Time = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """Results of a policy on the test questions, and the seconds, memory and tokens of its training."""

    accuracy: Estimate
    expected_reward: Estimate
    seconds: float
    peak_mib: int
    tokens: float


def main() -> None:
    params = load_params()
    if not TIMES.is_file():
        raise UserError(
            f"{TIMES}: missing: no stage has run in this folder, where each notes its time"
        )
    lines = of_present_models(read_jsonl(TIMES))
    times = last_times(lines, params.dataset, params.model, params.seeds)
    if not times:
        raise UserError(f"{TIMES}: no stage of {params.model} on {params.dataset}; run dvc repro")
    print(stage_table(times))
    for family in FAMILIES:
        path = Path("plots/compare") / f"{family}.csv"
        if path.is_file():
            check_compared(lines, family, params.dataset, params.model)
            compared = read_estimates(path)
            costs = policy_costs(compared, times, family)
            worse = dominated_policies(costs)
            print(f"\n{family}:\n\n{policy_table(costs, worse)}\n\n{DOMINATED}")
            if untimed := [label(name) for name in compared if name not in costs]:
                print(f"No row for {joined(untimed)}: {ABSENT}")
            if costs:
                points = {name: (cost.seconds, cost.accuracy) for name, cost in costs.items()}
                picture = Path("logs") / f"cost-{family}.png"
                plot_cost(family, points, finding(costs, worse), picture)
                print(f"\n{picture}")


def check_compared(lines: Sequence[Time], family: str, dataset: str, model: str) -> None:
    """`UserError` if the last comparison that ran here was of another data set or model."""
    compared = [
        line for line in lines if (line["stage"], line["arguments"]) == ("compare", [family])
    ]
    if compared and (compared[-1]["dataset"], compared[-1]["model"]) != (dataset, model):
        raise UserError(
            f"plots/compare/{family}.csv is of {compared[-1]['model']} on {compared[-1]['dataset']}; "
            "run dvc repro compare"
        )


def finding(costs: Mapping[str, PolicyCost], worse: Mapping[str, str]) -> str:
    """The policies that no other dominates, as a clause."""
    front = [label(name) for name in costs if name not in worse]
    if len(front) == len(costs):
        return "no policy is dominated in accuracy, expected reward and time"
    verb = "is" if len(front) == 1 else "are"
    return f"{joined(front)} {verb} not dominated in accuracy, expected reward and time"


def of_present_models(lines: Iterable[Time]) -> list[Time]:
    """The lines without those of trainings whose model is not there now."""
    present = cache(lambda folder: hash_path(folder) if folder.is_dir() else None)
    return [
        line
        for line in lines
        if "made" not in line or line["made"] == present(model_of(line["stage"], line["arguments"]))
    ]


def last_times(
    lines: Iterable[Time], dataset: str, model: str, seeds: Collection[int]
) -> list[Time]:
    """The last line of each stage and its arguments for one data set and model, in the order of their first runs.

    A stage whose last argument is a seed counts only for one of `seeds`.
    """
    last: dict[tuple[str, ...], Time] = {}
    for line in lines:
        seed = line["arguments"][-1] if line["arguments"] else ""
        if seed.isdigit() and int(seed) not in seeds:
            continue
        if (line["dataset"], line["model"]) == (dataset, model):
            line = {"tokens": 0, **line}  # lines of earlier versions have none
            last[(line["stage"], *line["arguments"])] = line
    return list(last.values())


def stage_table(times: Sequence[Time]) -> str:
    """Markdown: runs, total seconds and their share, peak memory and tokens of each stage."""
    total = sum(line["seconds"] for line in times)
    names = dict.fromkeys(line["stage"] for line in times)
    heads = ["stage", "runs", "seconds", "share", "peak memory, MiB", "million tokens"]
    rows = []
    for name in names:
        of_stage = [line for line in times if line["stage"] == name]
        seconds = sum(line["seconds"] for line in of_stage)
        peak = max(line["peak_mib"] for line in of_stage)
        tokens = _millions(sum(line["tokens"] for line in of_stage))
        share = f"{seconds / max(total, 0.01):.0%}"
        rows.append([name, str(len(of_stage)), f"{seconds:.1f}", share, str(peak), tokens])
    tokens = _millions(sum(line["tokens"] for line in times))
    return table(heads, [*rows, ["all", str(len(times)), f"{total:.1f}", "", "", tokens]])


def read_estimates(path: str | Path) -> dict[str, dict[str, Estimate]]:
    """By policy and metric, the means over seeds in a comparison's csv; `UserError` if it is no such file."""
    estimates: dict[str, dict[str, Estimate]] = {}
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            if row["seed"] == "mean":
                interval, inner = (
                    (float(row[low]), float(row[high])) if row[low] else None
                    for low, high in (("low", "high"), ("low_80", "high_80"))
                )
                estimate = Estimate(float(row["value"]), interval, inner)
                estimates.setdefault(row["policy"], {})[row["metric"]] = estimate
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a comparison's table: {error}; run dvc repro") from error
    return estimates


def policy_costs(
    compared: Mapping[str, Mapping[str, Estimate]], times: Sequence[Time], family: str
) -> dict[str, PolicyCost]:
    """Results and cost of each compared policy whose training was timed in full."""
    costs = {policy: training(times, family, policy) for policy in compared}
    return {
        policy: PolicyCost(compared[policy]["accuracy"], compared[policy]["expected_reward"], *cost)
        for policy, cost in costs.items()
        if cost is not None
    }


def dominated_policies(costs: Mapping[str, PolicyCost]) -> dict[str, str]:
    """Each dominated policy, with one that dominates it in accuracy, expected reward and seconds."""
    return dominated(
        {
            policy: (cost.accuracy.value, cost.expected_reward.value, -cost.seconds)
            for policy, cost in costs.items()
        }
    )


def policy_table(costs: Mapping[str, PolicyCost], worse: Mapping[str, str]) -> str:
    """Markdown: accuracy, expected reward and training cost of each policy, and one that dominates it."""
    heads = ["policy", "accuracy %", "expected reward %", "training: seconds per seed"]
    heads += ["million tokens", "peak memory, MiB", "dominated by"]
    rows = [
        [
            label(policy),
            _shown(cost.accuracy),
            _shown(cost.expected_reward),
            f"{cost.seconds:.1f}",
            _millions(cost.tokens),
            str(cost.peak_mib),
            label(worse[policy]) if policy in worse else "",
        ]
        for policy, cost in costs.items()
    ]
    return table(heads, rows)


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:.2f}" if tokens else ""


def _shown(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{100 * estimate.value:.1f}"
    low, high = estimate.interval
    return f"{100 * estimate.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def training(times: Sequence[Time], family: str, policy: str) -> tuple[float, int, float] | None:
    """Seconds per seed, peak memory and tokens per seed of all training of a policy; None if a part was not timed."""
    if policy == "base":
        return 0.0, 0, 0.0
    parts: list[tuple[str, str | None]] = [(f"{family}_sft", None)]
    parts += [] if policy == "sft" else [(f"{family}_rl", policy)]
    seconds, peak, tokens = 0.0, 0, 0.0
    for stage, method in parts:
        of_part = [
            line
            for line in times
            if line["stage"] == stage and method in (None, line["arguments"][0])
        ]
        if not of_part:
            return None
        seconds += mean(line["seconds"] for line in of_part)
        peak = max(peak, *(line["peak_mib"] for line in of_part))
        tokens += mean(line["tokens"] for line in of_part)
    return seconds, peak, tokens


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"cost: {error}")

"""What the stages cost on this machine, and which policies are worth their training.

    python -m posttrain.report.cost

Each stage that runs adds a line to logs/times.jsonl (`posttrain.core.stage`): its wall-clock seconds, peak memory, and the
tokens that its models read in forward passes: prompts and answers, drawn, validated or trained on, as often as that was
and with pads. Times differ from run to run, so they stand outside DVC's outputs; of a training that was killed and
resumed only what came after the kill is noted. Printed are the last times of each stage of the data set, model and
seeds that params.yaml names, and for each policy of the comparisons its test accuracy and expected reward beside the
seconds and tokens of its own training per seed, that of SFT before it included. A policy is dominated if another one
has at least its accuracy and its expected reward and was trained in no more time, and is better in one of the three;
that is said of the measured figures, so look at their intervals (logs/cost.png draws those of accuracy).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from posttrain.core.cost import TIMES
from posttrain.core.errors import UserError
from posttrain.core.files import read_jsonl, read_text
from posttrain.core.params import load_params
from posttrain.report.compare import Estimate
from posttrain.report.pareto import dominated
from posttrain.report.plots import plot_cost

FAMILIES = {"selector": "plots/compare.csv", "generator": "plots/compare_generator.csv"}
PLOT = Path("logs/cost.png")
Time = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """What a policy reaches on the test questions, and the seconds, memory and tokens that its training took."""

    accuracy: Estimate
    expected_reward: Estimate
    seconds: float
    peak_mib: int
    tokens: float


def main() -> None:
    params = load_params()
    if not TIMES.is_file():
        raise UserError(f"{TIMES}: missing; run dvc repro, each stage notes its time there")
    lines = read_jsonl(TIMES)
    times = last_times(lines, params.dataset, params.model, params.seeds)
    if not times:
        raise UserError(f"{TIMES}: no stage of {params.model} on {params.dataset}; run dvc repro")
    print(stage_table(times))
    points: dict[str, dict[str, tuple[float, Estimate]]] = {}
    off_front: set[str] = set()
    for family, path in FAMILIES.items():
        if Path(path).is_file():
            check_compared(lines, Path(path).stem, params.dataset, params.model)
            costs = policy_costs(read_estimates(path), times, family)
            worse = beaten(costs)
            print(f"\n{family}:\n\n{policy_table(costs, worse)}")
            points[family] = {
                policy: (cost.seconds, cost.accuracy) for policy, cost in costs.items()
            }
            off_front |= {f"{family}/{policy}" for policy in worse}
    if points:
        plot_cost(points, off_front, PLOT)


def check_compared(lines: Sequence[Time], stage: str, dataset: str, model: str) -> None:
    """`UserError` when the last comparison that ran here was of another data set or model."""
    of_stage = [line for line in lines if line["stage"] == stage]
    if of_stage and (of_stage[-1]["dataset"], of_stage[-1]["model"]) != (dataset, model):
        raise UserError(
            f"plots/{stage}.csv is of {of_stage[-1]['model']} on {of_stage[-1]['dataset']}; run dvc repro {stage}"
        )


def last_times(
    lines: Iterable[Time], dataset: str, model: str, seeds: Collection[int]
) -> list[Time]:
    """The last line of each stage and its arguments, of one data set and model, in the order of first runs.

    A stage whose last argument is a seed counts if it is one of `seeds`.
    """
    found: dict[tuple[str, ...], Time] = {}
    for line in lines:
        seed = line["arguments"][-1] if line["arguments"] else ""
        if seed.isdigit() and int(seed) not in seeds:
            continue
        if (line["dataset"], line["model"]) == (dataset, model):
            line = {"tokens": 0, **line}  # those of earlier versions have none
            found[(line["stage"], *line["arguments"])] = line
    return list(found.values())


def stage_table(times: Sequence[Time]) -> str:
    """Markdown: runs, seconds in all, share of the whole, peak memory and tokens of each stage."""
    total = sum(line["seconds"] for line in times)
    names = dict.fromkeys(line["stage"] for line in times)
    rows = [
        "| stage | runs | seconds | share | peak memory, MiB | million tokens |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        of_stage = [line for line in times if line["stage"] == name]
        seconds = sum(line["seconds"] for line in of_stage)
        peak = max(line["peak_mib"] for line in of_stage)
        tokens = sum(line["tokens"] for line in of_stage)
        rows.append(
            f"| {name} | {len(of_stage)} | {seconds:.1f} | {seconds / max(total, 0.01):.0%} | {peak} "
            f"| {_millions(tokens)} |"
        )
    tokens = sum(line["tokens"] for line in times)
    return "\n".join([*rows, f"| all | {len(times)} | {total:.1f} | | | {_millions(tokens)} |"])


def read_estimates(path: str) -> dict[str, dict[str, Estimate]]:
    """By policy and metric, the means over seeds that a comparison wrote."""
    found: dict[str, dict[str, Estimate]] = {}
    try:
        for row in csv.DictReader(read_text(path).splitlines()):
            if row["seed"] == "mean":
                interval, inner = (
                    (float(row[low]), float(row[high])) if row[low] else None
                    for low, high in (("low", "high"), ("low_80", "high_80"))
                )
                estimate = Estimate(float(row["value"]), interval, inner)
                found.setdefault(row["policy"], {})[row["metric"]] = estimate
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a comparison's table: {error}; run dvc repro") from error
    return found


def policy_costs(
    compared: Mapping[str, Mapping[str, Estimate]], times: Sequence[Time], family: str
) -> dict[str, PolicyCost]:
    """What each compared policy reaches and took, if all of its training was timed."""
    found = {policy: training(times, family, policy) for policy in compared}
    return {
        policy: PolicyCost(compared[policy]["accuracy"], compared[policy]["expected_reward"], *cost)
        for policy, cost in found.items()
        if cost is not None
    }


def beaten(costs: Mapping[str, PolicyCost]) -> dict[str, str]:
    """Each dominated policy, and one that dominates it in accuracy, expected reward and seconds."""
    return dominated(
        {
            policy: (cost.accuracy.value, cost.expected_reward.value, -cost.seconds)
            for policy, cost in costs.items()
        }
    )


def policy_table(costs: Mapping[str, PolicyCost], worse: Mapping[str, str]) -> str:
    """Markdown: accuracy, expected reward and training cost of each policy, and by which one it is dominated."""
    rows = [
        "| policy | accuracy | expected reward | training: seconds per seed | million tokens | peak memory, MiB "
        "| dominated by |",
        "|---|---|---|---|---|---|---|",
    ]
    for policy, cost in costs.items():
        rows.append(
            f"| {policy} | {_shown(cost.accuracy)} | {_shown(cost.expected_reward)} | {cost.seconds:.1f} "
            f"| {_millions(cost.tokens)} | {cost.peak_mib} | {worse.get(policy, '')} |"
        )
    return "\n".join(rows)


def _millions(tokens: float) -> str:
    return f"{tokens / 1e6:.2f}" if tokens else ""


def _shown(estimate: Estimate) -> str:
    if estimate.interval is None:
        return f"{estimate.value:.3f}"
    low, high = estimate.interval
    return f"{estimate.value:.3f} [{low:.3f}, {high:.3f}]"


def training(times: Sequence[Time], family: str, policy: str) -> tuple[float, int, float] | None:
    """Mean seconds per seed of all training that a policy took, its peak memory, and its mean tokens per seed; None if
    a part was not timed.
    """
    if policy == "base":
        return 0.0, 0, 0.0
    parts = [(f"sft_{family}", None)] + ([] if policy == "sft" else [(f"rl_{family}", policy)])
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

"""A comparison as tables: a few metrics for DVC, a long table for programs, and two small ones for readers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from posttrain.measures.named import DIGITS
from posttrain.report.compare import REFERENCE, Comparison, Estimate
from posttrain.report.findings import findings, label, percent, points

BLIND = "blind"  # before the name of a blind baseline in the csv: blind:longest
KINDS = {
    "selector": "kind of the chosen candidate",
    "generator": "first failure of the answer (wrong answer only: its program is right)",
}
COLUMNS = ("policy", "seed", "metric", "value", "low", "high", "low_80", "high_80", "spread", "p")


def few_metrics(comparison: Comparison) -> dict[str, dict[str, float]]:
    """By policy, the measures that are metrics; they are few, so that `dvc metrics show` and `dvc exp show` stay narrow."""
    few = [measure.name for measure in comparison.measures if measure.metric]
    return {
        policy: {name: round(result.values[name].value, DIGITS) for name in few}
        for policy, result in comparison.results.items()
    }


def long_table(comparison: Comparison) -> str:
    """A csv with one row per policy (or blind baseline), seed (a number, or `mean`) and metric.

    A row has the value, its 95 % and 80 % intervals, the spread over seeds, and the p-value of a change; a column that
    does not apply is empty. Changes are against SFT. The first row is the number of questions.
    """
    rows = [_row("", "", "questions", Estimate(comparison.questions))]
    for name, accuracy in comparison.blind.items():
        rows.append(_row(f"{BLIND}:{name}", "", "accuracy", Estimate(accuracy)))
    for policy, result in comparison.results.items():
        kinds = comparison.kinds[policy]
        named = {
            **result.values,
            **{f"{name}_change": change for name, change in result.changes.items()},
            **{f"share_{kind}": share for kind, (share, _) in kinds.items()},
        }
        for metric, estimate in named.items():
            rows.append(_row(policy, "mean", metric, estimate))
            for seed, of_seed in zip(comparison.seeds, estimate.seeds, strict=True):
                rows.append(_row(policy, str(seed), metric, of_seed))
        for kind, (_, reward) in kinds.items():
            rows.append(_row(policy, "mean", f"reward_when_{kind}", Estimate(reward)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    """The findings as a list, then the tables with their notes."""
    said = "\n".join(f"- {sentence}" for sentence in findings(comparison))
    return (
        "\n\n".join([said, main_table(comparison), _note(comparison), *_kinds(comparison)]) + "\n"
    )


def main_table(comparison: Comparison) -> str:
    """Markdown: accuracy of each policy in percent, and its changes against SFT in points, bold if beyond noise."""
    heads = ["policy", "accuracy % [95 %]"]
    against = label(REFERENCE)
    heads += [f"change of {one.change} vs {against}, points" for one in comparison.shown]
    rows = []
    for policy, result in comparison.results.items():
        accuracy = result.values["accuracy"]
        assert accuracy.interval is not None
        low, high = accuracy.interval
        cells = [label(policy), f"{100 * accuracy.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
        for measure in comparison.shown:
            cells.append(_change(result.changes.get(measure.name)))
        rows.append(cells)
    return table(heads, rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are padded, so that it reads well as plain text too."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(heads), rule, *map(line, rows)])


def _note(comparison: Comparison) -> str:
    seeds = comparison.seeds
    several = f"means over seeds {', '.join(map(str, seeds))}"
    changes = len(comparison.shown) * (len(comparison.results) - 1)
    return (
        f"{comparison.questions} test questions; {several if len(seeds) > 1 else f'seed {seeds[0]}'}. Accuracy: the "
        "greedy answer's program gives the gold answer. Changes, in percentage points against "
        f"{label(REFERENCE)} of the same seed: of the greedy answer's accuracy, and of the probability that a sample at "
        "temperature 1 is right. Brackets: 95 % intervals over questions. Bold: p < 0.05 in a paired permutation test, "
        f"adjusted for the {changes} changes of this table (Holm){', and every seed agrees' if len(seeds) > 1 else ''}. "
        f"Rewards, p-values, single seeds and their spread: `plots/compare/{comparison.family}.csv`."
    )


def _kinds(comparison: Comparison) -> list[str]:
    kinds = sorted({kind for shares in comparison.kinds.values() for kind in shares})
    rows = []
    for policy, of_kind in comparison.kinds.items():
        cells = [percent(of_kind[kind][0].value if kind in of_kind else 0.0) for kind in kinds]
        rows.append([label(policy), *cells])
    heads = ["policy", *(kind.replace("_", " ") for kind in kinds)]
    return [f"Share of the questions by {KINDS[comparison.family]}:", table(heads, rows)]


def _change(change: Estimate | None) -> str:
    if change is None:
        return ""
    assert change.interval is not None
    low, high = change.interval
    value = points(change.value)
    return f"{f'**{value}**' if change.clear else value} [{points(low)}, {points(high)}]"


def _row(policy: str, seed: str, metric: str, estimate: Estimate) -> dict[str, Any]:
    low, high = estimate.interval or (None, None)
    low_80, high_80 = estimate.inner_interval or (None, None)
    numbers = (estimate.value, low, high, low_80, high_80, estimate.spread, estimate.p)
    shown = ["" if number is None else f"{number:.{DIGITS}f}" for number in numbers]
    return dict(zip(COLUMNS, (policy, seed, metric, *shown), strict=True))

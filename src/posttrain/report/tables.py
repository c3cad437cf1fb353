"""A comparison as tables: a few metrics for DVC, a long table for programs, and two small ones for readers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from posttrain.measures.answers import RIGHT
from posttrain.measures.named import DIGITS
from posttrain.report.compare import REFERENCE, Comparison, Estimate
from posttrain.report.findings import findings, label, points

BLIND = "blind"  # before the name of a blind baseline in the csv: blind:longest
KINDS = {
    "selector": "kind of the chosen candidate",
    "generator": "first failure of the answer (a right one can have one, as a wrong stated answer beside its program)",
}
ACCURACY = {
    "selector": "the most probable candidate is right",
    "generator": "the greedy answer is right, which its program decides, or its final number in tasks without programs",
}
SAMPLE = {
    "selector": "a candidate sampled by the policy",
    "generator": "an answer sampled as `evaluate.generator` says",
}
_NUMBER = re.compile(r"(\*\*)?[+−-]?\d")  # how the cells of a column of numbers begin
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
            **{f"{name}_change": change for name, change in result.of_models.items()},
            **{
                f"{name}_change_of_method": change
                for name, change in result.changes.items()
                if change.of_method
            },
            **{f"share_{name}": kind.share for name, kind in kinds.items()},
        }
        for metric, estimate in named.items():
            rows.append(_row(policy, "mean", metric, estimate))
            for seed, of_seed in zip(comparison.seeds, estimate.seeds, strict=True):
                rows.append(_row(policy, str(seed), metric, of_seed))
        for name, kind in kinds.items():
            rows.append(_row(policy, "mean", f"reward_when_{name}", Estimate(kind.reward)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    """The findings as a list, then the tables with their notes."""
    said = "\n".join(f"- {sentence}" for sentence in findings(comparison))
    parts = [said, main_table(comparison), _note(comparison)]
    if comparison.of_methods:
        parts += [_models_note(comparison), main_table(comparison, of_models=True)]
    return "\n\n".join([*parts, *_kinds(comparison)]) + "\n"


def main_table(comparison: Comparison, of_models: bool = False) -> str:
    """Markdown: accuracy of each policy in percent, and its changes against SFT in points, bold if beyond noise.

    of_models: the noise is that of the questions alone, for these trained models; else that of trainings too, where there
    are enough seeds. Policies that were not trained come last, without numbers; `findings` says why.
    """
    heads = ["policy", "accuracy % [95 %]"]
    against = label(REFERENCE)
    shown = comparison.shown if len(comparison.results) > 1 else []
    heads += [f"change of {one.change} vs {against}, points" for one in shown]
    rows = []
    for policy, result in comparison.results.items():
        accuracy = result.values["accuracy"]
        assert accuracy.interval is not None
        low, high = accuracy.interval
        cells = [label(policy), f"{100 * accuracy.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"]
        for measure in shown:
            changes = result.of_models if of_models else result.changes
            cells.append(_change(changes.get(measure.name)))
        rows.append(cells)
    for policy in comparison.left_out:
        rows.append([f"{label(policy)}, not trained", *("" for _ in heads[1:])])
    return table(heads, rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are padded, so that it reads well as plain text too; numbers are to the right."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [any(body) and all(map(_number, body)) for _, *body in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 1) + (":" if number else "-")
        for width, number in zip(widths, right, strict=True)
    )
    return "\n".join([line(heads), f"|{rule}|", *map(line, rows)])


def _number(cell: str) -> bool:
    return not cell or _NUMBER.match(cell) is not None


def _note(comparison: Comparison) -> str:
    seeds = comparison.seeds
    several = f"means over seeds {', '.join(map(str, seeds))}"
    changes = len(comparison.shown) * (len(comparison.results) - 1)
    told = (
        f"Changes, in percentage points against {label(REFERENCE)} of the same seed: of the accuracy, and of the "
        f"probability that a sample, {SAMPLE[comparison.family]}, is right. "
    )
    if comparison.of_methods:
        told += (
            "Their brackets are for the methods: 95 % intervals over other trainings and other questions (random effects of "
            f"both, {len(seeds)} seeds). Bold: p < 0.05 of the same model, adjusted for the {changes} changes of this table "
            "(Holm). "
        )
    else:
        told += "Their brackets are for these trained models, over other questions; " + _bold(
            comparison
        )
    return (
        f"{comparison.questions} test questions; {several if len(seeds) > 1 else f'seed {seeds[0]}'}. Accuracy: "
        f"{ACCURACY[comparison.family]}, with a 95 % interval over questions. {told if changes else ''}"
        f"Rewards, p-values, single seeds and their spread: `plots/compare/{comparison.family}.csv`."
    )


def _models_note(comparison: Comparison) -> str:
    return (
        f"The same changes with brackets for these {len(comparison.seeds)} trained models of each method, over other "
        f"questions alone; {_bold(comparison)}".strip()
    )


def _bold(comparison: Comparison) -> str:
    changes = len(comparison.shown) * (len(comparison.results) - 1)
    agree = ", and every seed agrees" if len(comparison.seeds) > 1 else ""
    return f"bold: p < 0.05 in a paired permutation test, adjusted for {changes} changes (Holm){agree}. "


def _kinds(comparison: Comparison) -> list[str]:
    """The shares of right and wrong answers by kind, right ones first, then the greatest shares; none is left out."""
    shares: dict[str, list[float]] = {}
    policies = list(comparison.kinds)
    for column, policy in enumerate(policies):
        for name, kind in comparison.kinds[policy].items():
            shown = "no failure" if name == RIGHT else name.replace("_", " ")
            for verdict, share in (("right", kind.right), ("wrong", kind.share.value - kind.right)):
                if round(share, DIGITS) > 0:
                    row = shares.setdefault(f"{verdict}: {shown}", [0.0] * len(policies))
                    row[column] = share
    order = sorted(shares, key=lambda name: (name.split(":")[0], -sum(shares[name]), name))
    rows = [[name, *(f"{100 * share:.1f}" for share in shares[name])] for name in order]
    heads = ["% of the questions", *map(label, policies)]
    return [f"Right and wrong answers by {KINDS[comparison.family]}:", table(heads, rows)]


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

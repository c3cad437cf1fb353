"""A comparison as tables: a few metrics for DVC, a long table for programs, and Markdown for readers.

The Markdown is a list of findings, then sections, each with its heading, a table and what is to be known of it: the values
of each policy, its changes against each reference, kinds of answers, what other modules add, and last the same changes with
intervals for these trained models alone. `sections_of` takes it apart again.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain.core.params import CONTROL
from posttrain.measures.answers import RIGHT
from posttrain.measures.intervals import jeffreys
from posttrain.measures.named import DIGITS
from posttrain.report.compare import LEVEL, Comparison, Estimate
from posttrain.report.findings import EXPERT, FITTED, findings, label, points

BLIND = "blind"  # before the name of a blind baseline in the csv: blind:longest
# How the headings of the first sections begin.
MAIN = VALUES, CHANGES = "Right answers", "Change against"
KINDS = {
    "selector": "kind of the chosen candidate",
    "generator": "first failure of the answer (a right one can have one, as a wrong stated answer beside its program)",
}
ACCURACY = {
    "selector": "The greedy answer is the most probable candidate.",
    "generator": "An answer is right if its program is, or its final number in tasks without programs, or if it ends at an "
    "environment's goal.",
}
SAMPLE = {
    "selector": "a candidate drawn with the probabilities of the policy",
    "generator": "an answer drawn token by token",
}
UNADJUSTED = "Brackets are not adjusted, and may leave out 0 where nothing is bold."
_NUMBER = re.compile(r"(\*\*)?[+−-]?\d")  # how the cells of a column of numbers begin
COLUMNS = ("policy", "seed", "metric", "value", "low", "high", "low_80", "high_80", "spread", "p")


def few_metrics(comparison: Comparison) -> dict[str, dict[str, float]]:
    """By policy, the measures that are metrics; they are few, so that `dvc metrics show` and `dvc exp show` stay narrow."""
    few = [measure.name for measure in comparison.measures if measure.metric]
    return {
        policy: {name: round(result.values[name].value, DIGITS) for name in few}
        for policy, result in comparison.results.items()
    }


def long_table(comparison: Comparison, more: Iterable[tuple[str, str, Estimate]] = ()) -> str:
    """A csv with one row per policy (or blind baseline), seed (a number, or `mean`) and metric.

    A row has the value, its 95 % and 80 % intervals, the spread over seeds, and the p-value of a change; a column that
    does not apply is empty. The metric of a change names the reference: accuracy_vs_sft, with the interval and p-value for
    these trained models, and accuracy_vs_sft_of_method. The first row is the number of questions. `more`: further rows of
    means, (policy, metric, estimate).
    """
    rows = [_row("", "", "questions", Estimate(comparison.questions))]
    for name, accuracy in comparison.blind.items():
        rows.append(_row(f"{BLIND}:{name}", "", "accuracy", Estimate(accuracy)))
    for policy, result in comparison.results.items():
        kinds = comparison.kinds[policy]
        named = {
            **result.values,
            **{
                f"{name}_vs_{reference}": change
                for reference, changes in result.of_models.items()
                for name, change in changes.items()
            },
            **{
                f"{name}_vs_{reference}_of_method": change
                for reference, changes in result.changes.items()
                for name, change in changes.items()
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
    rows += [_row(policy, "mean", metric, estimate) for policy, metric, estimate in more]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(comparison: Comparison, sections: Mapping[str, str] | None = None) -> str:
    """The findings and notes as a list, then the sections; `sections`: further ones, heading to Markdown."""
    said = "\n".join(f"- {sentence}" for sentence in [*findings(comparison), *comparison.notes])
    values = f"{values_table(comparison)}\n\n{_values_note(comparison)}"
    parts = {f"{VALUES}, % of the test questions": values}
    for reference in comparison.references:
        against = (
            f"{changes_table(comparison, reference)}\n\n{_changes_note(comparison, reference)}"
        )
        parts[f"{CHANGES} {label(reference)}, percentage points"] = against
    parts["Right and wrong answers by kind"] = _kinds(comparison)
    parts |= sections or {}
    if comparison.of_methods:
        parts["The same changes for these trained models alone"] = _of_models(comparison)
    texts = [f"### {heading}\n\n{text.strip()}" for heading, text in parts.items()]
    return "\n\n".join([said, *texts]) + "\n"


def sections_of(text: str) -> tuple[list[str], dict[str, str]]:
    """The items of the list at the beginning of what `markdown` wrote, and by heading the text of each section."""
    said, *rest = re.split(r"^### ", text, flags=re.MULTILINE)
    parts = dict(part.split("\n", 1) for part in rest)
    return said.strip().split("\n"), {heading: part.strip() for heading, part in parts.items()}


def values_table(comparison: Comparison) -> str:
    """Markdown: the share of right answers of each policy by measure, in percent.

    Policies that were not trained come last, without numbers; `findings` says why. After them come an environment's scripted
    players, of one episode per question.
    """
    heads = ["right answers, % [95 %]", *(measure.change for measure in comparison.shown)]
    rows = [
        [label(policy), *(_value(result.values[one.name]) for one in comparison.shown)]
        for policy, result in comparison.results.items()
    ]
    for policy in comparison.left_out:
        rows.append([f"{label(policy)}, not trained", *("" for _ in heads[1:])])
    if EXPERT in comparison.blind:
        for name, share in comparison.blind.items():
            interval = jeffreys(share * comparison.questions, comparison.questions, LEVEL)
            scripted = f"{name.replace('_', ' ')} (scripted)"
            rows.append([scripted, _value(Estimate(share, interval)), *("" for _ in heads[2:])])
    return table(heads, rows)


def changes_table(comparison: Comparison, reference: str, of_models: bool = False) -> str:
    """Markdown: the changes against a reference by measure, in percentage points, bold if beyond noise.

    of_models: the noise is that of the questions alone, for these trained models; else that of trainings too, where there
    are enough seeds.
    """
    heads = [f"change against {label(reference)}, points [95 %]"]
    heads += [measure.change for measure in comparison.shown]
    rows = [
        [label(policy), *(_change(changes[measure.name]) for measure in comparison.shown)]
        for policy, changes in comparison.against(reference, of_models).items()
    ]
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


def _values_note(comparison: Comparison) -> str:
    seeds = comparison.seeds
    several = (
        f"means over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    )
    fitted = any(measure.name == FITTED for measure in comparison.shown)
    temperature = (
        " The fitted temperature is each policy's own, at which it finds validation's gold answers most likely."
        if fitted
        else ""
    )
    return (
        f"{comparison.questions} test questions; {several}. {ACCURACY[comparison.family]} A sample is "
        f"{SAMPLE[comparison.family]}, and its share the probability that it is right.{temperature} Brackets: 95 % "
        "intervals over questions, for these trained models. Rewards, p-values, single seeds and their spread: "
        f"`plots/compare/{comparison.family}.csv`."
    )


def _changes_note(comparison: Comparison, reference: str) -> str:
    control = (
        f"{label(CONTROL)} is SFT continued from where RL begins, with the effort of an RL method: this is what RL adds to "
        "more SFT. "
    )
    paired = f"Against the model of the same seed. {control if reference == CONTROL else ''}"
    count = _count(comparison, reference)
    if not comparison.of_methods:
        return paired + _models_note(comparison, f"the {count} changes of this table")
    return (
        f"{paired}Brackets are for the methods: 95 % intervals over other trainings and other questions (random effects of "
        f"both, {len(comparison.seeds)} seeds). Bold: p < 0.05 of the same model, adjusted for the {count} changes of this "
        f"table (Holm). {UNADJUSTED}"
    )


def _of_models(comparison: Comparison) -> str:
    counts = [str(_count(comparison, reference)) for reference in comparison.references]
    each = f"the {' and '.join(counts)} changes of {'each' if len(counts) > 1 else 'the'} table"
    tables = [changes_table(comparison, reference, True) for reference in comparison.references]
    return "\n\n".join([*tables, _models_note(comparison, each)])


def _models_note(comparison: Comparison, changes: str) -> str:
    agree = ", and every seed agrees" if len(comparison.seeds) > 1 else ""
    return (
        "Brackets are for these trained models, over other questions alone. Bold: p < 0.05 in a paired permutation test, "
        f"adjusted for {changes} (Holm){agree}. {UNADJUSTED}"
    )


def _count(comparison: Comparison, reference: str) -> int:
    """The number of changes in the table against a reference."""
    return len(comparison.shown) * len(comparison.against(reference))


def _kinds(comparison: Comparison) -> str:
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
    return f"By {KINDS[comparison.family]}:\n\n{table(heads, rows)}"


def _value(value: Estimate) -> str:
    assert value.interval is not None
    low, high = value.interval
    return f"{100 * value.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _change(change: Estimate) -> str:
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

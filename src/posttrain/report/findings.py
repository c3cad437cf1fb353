"""Sentences that follow by rules from the numbers of a comparison.

A change is beyond noise if its adjusted p-value is below 0.05 and every seed changed in the same direction. With a
single seed, a sentence says that one training per method is described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.measures.named import Measure
from posttrain.report.compare import REFERENCE, SIGNIFICANCE, Comparison, Estimate

MINUS, SPACE = "−", "\u00a0"  # no line breaks at this space
_CLOSE = 1e-9


def label(policy: str) -> str:
    """A policy's name for readers: upper case, except base and exact."""
    return policy if policy in ("base", "exact") else policy.upper()


def percent(share: float) -> str:
    """0.914 as 91.4 %."""
    return f"{100 * share:.1f}{SPACE}%"


def points(change: float) -> str:
    """A difference of shares in percentage points, with its sign: 0.024 as +2.4."""
    text = f"{100 * change:+.1f}"
    return text[1:] if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def joined(names: Sequence[str]) -> str:
    """a, b and c."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def headline(comparison: Comparison) -> str:
    """The changes that are beyond noise, as a clause."""
    if not comparison.methods:
        accuracy = comparison.results[REFERENCE].values["accuracy"].value
        return f"{label(REFERENCE)} answers {percent(accuracy)} right"
    clauses, unclear = [], []
    for measure in comparison.shown:
        clear = _clear(comparison, measure)
        if not clear:
            unclear.append(measure.change)
        told = []
        for verb, sign in (("gain", 1), ("lose", -1)):
            moved = {name: change for name, change in clear.items() if change.value * sign > 0}
            if moved:
                every = len(moved) == len(comparison.methods) > 1
                verb += "s" if every or len(moved) == 1 else ""
                names = "every method" if every else joined([label(name) for name in moved])
                told.append(f"{names} {verb} {_range([abs(c.value) for c in moved.values()])}")
        if told:
            clauses.append(f"in {measure.change} {joined(told)}")
    if unclear:
        clauses.append(f"in {' and '.join(unclear)} no method is clear of {label(REFERENCE)}")
    return "; ".join(clauses)


def findings(comparison: Comparison) -> list[str]:
    """The sentences that open a report, the most important first, as Markdown."""
    said = [f"**{_best(comparison)}**"]
    base = comparison.results.get("base")
    if base is not None and REFERENCE in comparison.results:
        said.append(_from_base(base.changes["accuracy"]))
    if comparison.methods:
        said += [_changes(comparison, measure) for measure in comparison.shown]
        said += _surer(comparison)
    if comparison.blind:
        name, accuracy = max(comparison.blind.items(), key=lambda item: item[1])
        said.append(
            f"The best blind baseline ({name.replace('_', ' ')}), which reads the candidates and not the "
            f"question, has {percent(accuracy)}."
        )
    return [*said, _seeds(comparison)]


def _best(comparison: Comparison) -> str:
    """The policy that answers the most questions right, or all of them in a tie."""
    right = {name: result.values["accuracy"].value for name, result in comparison.results.items()}
    most = max(right.values())
    best = [name for name, value in right.items() if value > most - _CLOSE]
    among = f"of {comparison.questions} test questions"
    names = joined([label(name) for name in best])
    if REFERENCE in best and comparison.methods:
        rest = {name: right[name] for name in comparison.methods if name not in best}
        if not rest:
            return f"{names} answer the same share {among} right: {percent(most)}."
        equal = "" if len(best) == 1 else f", which {names} share"
        second = max(rest, key=lambda name: rest[name])
        return (
            f"No RL method answers more {among} right than {label(REFERENCE)}: {percent(most)}{equal}; "
            f"{label(second)} has {percent(rest[second])}."
        )
    verb = "answers" if len(best) == 1 else "answer"
    against = "" if REFERENCE in best else f", {label(REFERENCE)} {percent(right[REFERENCE])}"
    changes = [comparison.results[name].changes.get("accuracy") for name in best]
    noise = not any(change and change.clear for change in changes) and REFERENCE not in best
    within = "; the difference is within noise" if noise else ""
    return f"{names} {verb} the most {among} right: {percent(most)}{against}{within}."


def _from_base(change: Estimate) -> str:
    """The gain of SFT over base, from the change of base against SFT."""
    size = abs(change.value)
    if not change.clear:
        return f"SFT is not clear of the base model: {points(-change.value)} points in accuracy."
    verb = "gains" if change.value < 0 else "loses"
    ends = _ends(change, sign=-1 if change.value < 0 else 1)
    return f"SFT {verb} {100 * size:.1f} points {ends} in accuracy on the base model."


def _changes(comparison: Comparison, measure: Measure) -> str:
    """The changes of the methods in one measure, those beyond noise apart from the others."""
    clear = _clear(comparison, measure)
    rest = {
        name: result.changes[measure.name]
        for name, result in comparison.methods.items()
        if name not in clear
    }
    subject = f"In {measure.change}"
    others = ", ".join(
        f"{label(name)}{SPACE}{points(change.value)}" for name, change in _sorted(rest)
    )
    if not clear:
        return f"{subject} no method's change against SFT is beyond noise: {others} points."
    told = ", ".join(
        f"{label(name)}{SPACE}{points(change.value)} {_ends(change)}"
        for name, change in _sorted(clear)
    )
    if not rest:
        return f"{subject} every method's change against SFT is beyond noise: {told} points."
    return f"{subject} the change against SFT is beyond noise for {told} points, not for {others}."


def _surer(comparison: Comparison) -> list[str]:
    """A caution about methods that gain in a sample and not in the greedy answer."""
    greedy, *sampled = (_clear(comparison, measure) for measure in comparison.shown)
    surer = {
        name
        for changes in sampled
        for name, change in changes.items()
        if change.value > 0 and name not in greedy
    }
    if not surer:
        return []
    names = joined([label(name) for name in comparison.methods if name in surer])
    return [
        f"A policy that only grows surer of the same answers gains in a sample too, as at a lower temperature: {names}."
    ]


def _seeds(comparison: Comparison) -> str:
    """The claims that the number of seeds allows."""
    count = len(comparison.seeds)
    if count == 1:
        return (
            "One seed: this describes one training of each method, and another seed may rank them otherwise. "
            "Ask for three before believing it: `dvc exp run -S 'seeds=[0,1,2]'`."
        )
    told = f"{count} seeds: the p-values describe other questions for these trainings, not other trainings"
    torn = [
        f"{label(name)} in {measure.change} "
        f"({', '.join(points(seed.value) for seed in result.changes[measure.name].seeds)})"
        for measure in comparison.shown
        for name, result in comparison.methods.items()
        if result.changes[measure.name].significant and not result.changes[measure.name].clear
    ]
    if torn:
        return f"{told}. Below {SIGNIFICANCE} but with seeds that disagree: {'; '.join(torn)}."
    return f"{told}; beyond noise counts only where every seed changed in the same direction."


def _clear(comparison: Comparison, measure: Measure) -> dict[str, Estimate]:
    changes = {name: result.changes[measure.name] for name, result in comparison.methods.items()}
    return {name: change for name, change in changes.items() if change.clear}


def _sorted(changes: Mapping[str, Estimate]) -> list[tuple[str, Estimate]]:
    return sorted(changes.items(), key=lambda item: -item[1].value)


def _range(sizes: Sequence[float]) -> str:
    low, high = f"{100 * min(sizes):.1f}", f"{100 * max(sizes):.1f}"
    return f"{low} points" if low == high else f"{low} to {high} points"


def _ends(change: Estimate, sign: int = 1) -> str:
    assert change.interval is not None
    low, high = sorted(sign * end for end in change.interval)
    return f"[{points(low)},{SPACE}{points(high)}]"

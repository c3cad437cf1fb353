"""Sentences that follow by rules from the numbers of a comparison.

A change is beyond noise if its adjusted p-value is below 0.05. With three seeds and more that is the p-value of the method,
over other trainings and other questions. With fewer, it is that of these models, every seed must have changed in the same
direction, and the sentences say that they are of these models and not of methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.measures.crossed import LEAST_SEEDS
from posttrain.measures.named import Measure
from posttrain.report.compare import REFERENCE, Comparison, Estimate, Result

MINUS, SPACE = "−", "\u00a0"  # no line breaks at this space
_CLOSE = 1e-9
NOT_TRAINED = "not trained**"  # in the sentences about policies without a result


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
        differs = f"no method differs from {label(REFERENCE)} beyond noise"
        clauses.append(f"in {' and '.join(unclear)} {differs}")
    return "; ".join(clauses)


def findings(comparison: Comparison) -> list[str]:
    """The sentences that open a report, as Markdown; the first has the conclusion and the highest accuracy."""
    said = [f"**{_best(comparison)}**"]
    if comparison.methods:
        conclusion = headline(comparison)
        if not comparison.of_methods:
            conclusion = f"for these trained models alone: {conclusion}"
        said = [f"**{conclusion[0].upper()}{conclusion[1:]}.** {_best(comparison)}"]
    base = comparison.results.get("base")
    if base is not None:
        said.append(f"Against the base model SFT {_from_base(base, comparison.shown)}.")
    if comparison.methods:
        said += [_changes(comparison, measure) for measure in comparison.shown]
        said += _surer(comparison)
    if comparison.blind:
        name, accuracy = max(comparison.blind.items(), key=lambda item: item[1])
        said.append(
            f"The best blind baseline ({name.replace('_', ' ')}), which reads the candidates and not the "
            f"question, is right on {percent(accuracy)}."
        )
    return [*said, *left_out_sentences(comparison), _seeds(comparison)]


def _best(comparison: Comparison) -> str:
    """The policy with the highest accuracy, or all of them in a tie."""
    right = {name: result.values["accuracy"].value for name, result in comparison.results.items()}
    most = max(right.values())
    best = [name for name, value in right.items() if value > most - _CLOSE]
    among = f"on {comparison.questions} test questions"
    names = joined([label(name) for name in best])
    if len(right) == 1:
        return f"{names} has an accuracy of {percent(most)} {among}."
    if REFERENCE in best and comparison.methods:
        rest = {name: right[name] for name in comparison.methods if name not in best}
        if not rest:
            return f"{names} have the same accuracy {among}: {percent(most)}."
        equal = "" if len(best) == 1 else f", which {names} share"
        second = max(rest, key=lambda name: rest[name])
        return (
            f"No RL method has a higher accuracy {among} than {label(REFERENCE)}: {percent(most)}{equal}; "
            f"{label(second)} has {percent(rest[second])}."
        )
    verb = "has" if len(best) == 1 else "have"
    against = "" if REFERENCE in best else f", {label(REFERENCE)} {percent(right[REFERENCE])}"
    changes = [comparison.results[name].changes.get("accuracy") for name in best]
    noise = not any(change and change.clear for change in changes) and REFERENCE not in best
    within = "; the difference is within noise" if noise else ""
    return f"{names[0].upper()}{names[1:]} {verb} the highest accuracy {among}: {percent(most)}{against}{within}."


def _from_base(base: Result, measures: Sequence[Measure]) -> str:
    """The gains of SFT over base, from the changes of base against SFT, as a clause."""
    told: dict[str, list[str]] = {}
    for measure in measures:
        change = base.changes[measure.name]
        if not change.clear:
            moved = f"in {measure.change} ({points(-change.value)} points)"
            told.setdefault("stays within noise", []).append(moved)
        else:
            verb, sign = ("gains", -1) if change.value < 0 else ("loses", 1)
            size = f"{100 * abs(change.value):.1f} points {_ends(change, sign)}"
            told.setdefault(verb, []).append(f"{size} in {measure.change}")
    return joined([f"{verb} {joined(moved)}" for verb, moved in told.items()])


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
    greedy, *sampled = (
        {name for name, change in _clear(comparison, measure).items() if change.value > 0}
        for measure in comparison.shown
    )
    surer = set[str]().union(*sampled) - greedy
    if not surer:
        return []
    names = joined([label(name) for name in comparison.methods if name in surer])
    verb = "gains" if len(surer) == 1 else "gain"
    return [
        f"{names} {verb} in a sample and not in the greedy answer. A policy that only grows surer of the answers it gave "
        "does the same, as does sampling at a lower temperature."
    ]


def left_out_sentences(comparison: Comparison) -> list[str]:
    """The policies that were not trained, those for the same reason together."""
    names: dict[str, list[str]] = {}
    for policy, reason in comparison.left_out.items():
        names.setdefault(reason, []).append(label(policy))
    return [
        f"**{joined(same)} {'was' if len(same) == 1 else 'were'} {NOT_TRAINED}: {reason}."
        for reason, same in names.items()
    ]


def _seeds(comparison: Comparison) -> str:
    """The claims that the number of seeds allows."""
    count = len(comparison.seeds)
    if comparison.of_methods:
        return (
            f"{count} seeds: intervals and p-values of changes count other trainings of a method and other questions; those "
            "for these trained models alone are in a table of their own."
        )
    many = "One seed on one machine" if count == 1 else f"{count} seeds on one machine"
    each = "one training" if count == 1 else f"{count} trainings"
    return (
        f"{many}: this describes {each} of each method, and nothing can be said of the methods. Other seeds, or the same on "
        f"another machine, may rank them otherwise. Ask for {LEAST_SEEDS} or more: `dvc exp run -S 'seeds=[0,1,2]'`."
    )


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

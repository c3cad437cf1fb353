"""Sentences that follow by rules from the numbers of a comparison.

A change is beyond noise if its adjusted p-value is below 0.05. With three seeds and more that is the p-value of the method,
over other trainings and other questions. With fewer, it is that of these models, every seed must have changed in the same
direction, and the sentences say that they are of these models and not of methods.

The references are SFT+ (SFT trained on for as long as a method trains) where a run has it, and SFT. In the order in which
they are said:

    conclusion     of the greedy answer alone, against SFT+ first: a method beats a reference if its gain is beyond noise and
                   falls behind it if its loss is. Otherwise it is not shown to beat it, which is no proof that it does not
    highest        the policy with the highest accuracy as measured, and the references from which that is within noise
    base           what SFT gains or loses against the base model, or that it stays within noise
    SFT+           if it beats SFT beyond noise in the greedy answer, that SFT was not at its end; no other outcome says that
                   it was
    changes        by measure and reference, the changes beyond noise apart from the others
    temperature    a gain beyond noise in a sample at temperature 1, of a method without one at the fitted temperature:
                   what is shown is a matter of temperature
    one scale      a gain beyond noise in a sample at the fitted temperature, of a method without one in the greedy answer:
                   one temperature for all questions does not explain it
    blind, not trained, seeds      what else is to be known of the numbers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.core.params import CONTROL
from posttrain.measures.crossed import LEAST_SEEDS
from posttrain.measures.named import Measure
from posttrain.report.compare import REFERENCE, Comparison, Estimate

MINUS, SPACE = "−", "\u00a0"  # no line breaks at this space
LABELS = {"base": "base", "exact": "exact", CONTROL: "SFT+", "ppo_affine": "PPO (Affine)"}
_CLOSE = 1e-9
# The measures of which the sentences on temperature speak.
GREEDY, FITTED, AT_ONE = "accuracy", "fitted_accuracy", "sample_accuracy"
EXPERT = "expert"  # the scripted player of an environment that knows what to do
NOT_TRAINED = "not trained**"  # in the sentences about policies without a result


def label(policy: str) -> str:
    """A policy's name for readers: upper case, except base and exact; SFT+ is the control."""
    return LABELS.get(policy, policy.upper())


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
    """The conclusion on the greedy answer, as a clause."""
    if not comparison.methods:
        accuracy = comparison.results[REFERENCE].values[GREEDY].value
        return f"{label(REFERENCE)} answers {percent(accuracy)} right"
    references = comparison.references
    if not any(_clear(comparison, reference, GREEDY) for reference in references):
        names = " or ".join(map(label, references))
        return f"in the greedy answer no RL method is shown to beat {names}"
    told = [_beaten(comparison, reference) for reference in references]
    return f"in the greedy answer {'; '.join(told)}"


def _beaten(comparison: Comparison, reference: str) -> str:
    """The methods that beat a reference in the greedy answer and those that fall behind it, as a clause."""
    clear, name = _clear(comparison, reference, GREEDY), label(reference)
    told = []
    gains = {method: change.value for method, change in clear.items() if change.value > 0}
    losses = {method: -change.value for method, change in clear.items() if change.value < 0}
    if gains:
        told.append(f"{_named(comparison, gains, 'beat')} {name} by {_range([*gains.values()])}")
    else:
        told.append(f"no RL method is shown to beat {name}")
    if losses:
        told.append(f"{_named(comparison, losses, 'fall')} {_range([*losses.values()])} behind it")
    return ", and ".join(told)


def _named(comparison: Comparison, some: Mapping[str, float], verb: str) -> str:
    """Some of the methods as the subject of a verb."""
    every = len(some) == len(comparison.methods) > 1
    names = "every RL method" if every else joined([label(name) for name in some])
    return f"{names} {verb}{'s' if every or len(some) == 1 else ''}"


def findings(comparison: Comparison) -> list[str]:
    """The sentences that open a report, as Markdown; the first has the conclusion and the highest accuracy."""
    said = [f"**{_best(comparison)}**"]
    if comparison.methods:
        conclusion = headline(comparison)
        if not comparison.of_methods:
            conclusion = f"for these trained models alone: {conclusion}"
        said = [f"**{conclusion[0].upper()}{conclusion[1:]}.** {_best(comparison)}"]
    against = comparison.against(REFERENCE)
    if "base" in against:
        said.append(f"Against the base model SFT {_from_base(against['base'], comparison.shown)}.")
    if CONTROL in against:
        said.append(_longer(against[CONTROL][GREEDY], comparison.of_methods))
    if comparison.methods:
        said += [_changes(comparison, measure) for measure in comparison.shown]
        if {FITTED, AT_ONE} <= {measure.name for measure in comparison.shown}:
            said += _of_temperature(comparison)
    if EXPERT in comparison.blind:
        said.append(_scripted(comparison.blind))
    elif comparison.blind:
        name, accuracy = max(comparison.blind.items(), key=lambda item: item[1])
        reads = {
            "selector": "reads the candidates and not the question",
            "generator": "learns nothing",
        }
        said.append(
            f"The best blind baseline ({name.replace('_', ' ')}), which {reads[comparison.family]}, is right on "
            f"{percent(accuracy)}."
        )
    return [*said, *left_out_sentences(comparison), _seeds(comparison)]


def _scripted(success: Mapping[str, float]) -> str:
    """What players without a model reach in an environment, from the success of each."""
    others = [
        f"{name.replace('_', ' ')} {percent(share)}"
        for name, share in success.items()
        if name != EXPERT
    ]
    told = f", players that learn nothing on {joined(others)}" if others else ""
    return f"The environment's own expert ends at the goal on {percent(success[EXPERT])} of the starts{told}."


def _best(comparison: Comparison) -> str:
    """The policy with the highest accuracy, or all of them in a tie."""
    right = {name: result.values[GREEDY].value for name, result in comparison.results.items()}
    most = max(right.values())
    best = [name for name, value in right.items() if value > most - _CLOSE]
    among = f"on {comparison.questions} test questions"
    names = joined([label(name) for name in best])
    references = [name for name in (REFERENCE, CONTROL) if name in right]
    if len(right) == 1:
        return f"{names} has an accuracy of {percent(most)} {among}."
    if most == 0:
        return f"No policy has a right greedy answer {among}."
    if comparison.methods and (top := [name for name in references if name in best]):
        rest = {name: right[name] for name in comparison.methods if name not in best}
        if not rest:
            return f"{names} have the same accuracy {among}: {percent(most)}."
        equal = "" if len(best) == len(top) else f", which {names} share"
        second = max(rest, key=lambda name: rest[name])
        return (
            f"No RL method has a higher accuracy {among} than {joined([label(name) for name in top])}: "
            f"{percent(most)}{equal}; {label(second)} has {percent(rest[second])}."
        )
    verb = "has" if len(best) == 1 else "have"
    others = "".join(
        f", {label(name)} {percent(right[name])}" for name in references if name not in best
    )
    unclear = [
        label(reference)
        for reference in comparison.references
        if reference not in best and not _any_clear(comparison, reference, best)
    ]
    within = f"; the difference from {joined(unclear)} is within noise" if unclear else ""
    return f"{names[0].upper()}{names[1:]} {verb} the highest accuracy {among}: {percent(most)}{others}{within}."


def _any_clear(comparison: Comparison, reference: str, policies: Sequence[str]) -> bool:
    """Whether the accuracy of one of the policies differs from the reference beyond noise, or is not compared with it."""
    changes = comparison.against(reference)
    return any(name not in changes or changes[name][GREEDY].clear for name in policies)


def _from_base(base: Mapping[str, Estimate], measures: Sequence[Measure]) -> str:
    """The gains of SFT over base, from the changes of base against SFT, as a clause."""
    told: dict[str, list[str]] = {}
    for measure in measures:
        change = base[measure.name]
        if not change.clear:
            moved = f"in {measure.change} ({points(-change.value)} points)"
            told.setdefault("stays within noise", []).append(moved)
        else:
            verb, sign = ("gains", -1) if change.value < 0 else ("loses", 1)
            size = f"{100 * abs(change.value):.1f} points {_ends(change, sign)}"
            told.setdefault(verb, []).append(f"{size} in {measure.change}")
    return joined([f"{verb} {joined(moved)}" for verb, moved in told.items()])


def _longer(change: Estimate, of_methods: bool) -> str:
    """What training on with SFT adds to the greedy answer, from the change of SFT+ against SFT."""
    control = f"{label(CONTROL)}, which trains on with SFT where the methods train with RL,"
    if not change.clear:
        return (
            f"{control} is not shown to differ from SFT in the greedy answer: "
            f"{points(change.value)} points."
        )
    size = f"{100 * abs(change.value):.1f} points {_ends(change, 1 if change.value > 0 else -1)}"
    if change.value < 0:
        return f"{control} falls {size} behind SFT in the greedy answer."
    which = "SFT" if of_methods else "this SFT"
    return (
        f"{control} beats SFT by {size} in the greedy answer: {which} was not at its end, and a gain against it alone may "
        "come from training for longer."
    )


def _changes(comparison: Comparison, measure: Measure) -> str:
    """The changes of the methods in one measure against each reference, those beyond noise apart from the others."""
    told = "; ".join(_apart(comparison, measure, reference) for reference in comparison.references)
    return f"In {measure.change} {told}."


def _apart(comparison: Comparison, measure: Measure, reference: str) -> str:
    clear = _clear(comparison, reference, measure.name)
    changes = comparison.against(reference)
    rest = {name: changes[name][measure.name] for name in comparison.methods if name not in clear}
    against = f"change against {label(reference)}"
    others = ", ".join(
        f"{label(name)}{SPACE}{points(change.value)}" for name, change in _sorted(rest)
    )
    if not clear:
        return f"no method's {against} is beyond noise: {others} points"
    told = ", ".join(
        f"{label(name)}{SPACE}{points(change.value)} {_ends(change)}"
        for name, change in _sorted(clear)
    )
    if not rest:
        return f"every method's {against} is beyond noise: {told} points"
    return f"the {against} is beyond noise for {told} points, not for {others}"


def _of_temperature(comparison: Comparison) -> list[str]:
    """What the gains in samples show that are not there at the fitted temperature, or not in the greedy answer."""
    gains = {
        (reference, measure): tuple(
            name
            for name, change in _clear(comparison, reference, measure).items()
            if change.value > 0
        )
        for reference in comparison.references
        for measure in (GREEDY, FITTED, AT_ONE)
    }
    said = []
    for measure, lacking, where, shown in (
        (
            AT_ONE,
            FITTED,
            "at temperature 1 and not at the fitted temperature",
            "what is shown is a matter of temperature",
        ),
        (
            FITTED,
            GREEDY,
            "at the fitted temperature and not in the greedy answer",
            "one temperature for all questions does not explain that, and no better greedy answer is shown",
        ),
    ):
        against: dict[tuple[str, ...], list[str]] = {}
        for reference in comparison.references:
            rest = gains[reference, lacking]
            names = tuple(name for name in gains[reference, measure] if name not in rest)
            if names:
                against.setdefault(names, []).append(label(reference))
        for names, references in against.items():
            verb = "gains" if len(names) == 1 else "gain"
            said.append(
                f"Against {joined(references)} {joined([label(name) for name in names])} {verb} beyond noise in a sample "
                f"{where}: {shown}."
            )
    return said


def left_out_sentences(comparison: Comparison) -> list[str]:
    """The policies that were not trained, those for the same reason together."""
    return not_trained_sentences(comparison.left_out)


def not_trained_sentences(left_out: Mapping[str, str]) -> list[str]:
    """Of each reason why policies were not trained (policy to reason), a sentence."""
    names: dict[str, list[str]] = {}
    for policy, reason in left_out.items():
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
            "for these trained models alone are in tables of their own."
        )
    many = "One seed on one machine" if count == 1 else f"{count} seeds on one machine"
    each = "one training" if count == 1 else f"{count} trainings"
    return (
        f"{many}: this describes {each} of each method, and nothing can be said of the methods. Other seeds, or the same on "
        f"another machine, may rank them otherwise. Ask for {LEAST_SEEDS} or more: `dvc exp run -S 'seeds=[0,1,2]'`."
    )


def _clear(comparison: Comparison, reference: str, measure: str) -> dict[str, Estimate]:
    """The changes of methods against a reference that are beyond noise."""
    against = comparison.against(reference)
    changes = {name: against[name][measure] for name in comparison.methods}
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

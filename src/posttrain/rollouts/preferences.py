"""Preference pairs for DPO from sampled completions: right over wrong first, then better over worse.

The input is the records of `rollouts.record.score_completion`. A question's samples give two kinds of pairs:

    correctness   a right answer (official execution) over a wrong one; margin = reward - reward > 0
    quality       a right answer over a right one; margin = quality - quality > minimal_margin, where the chosen one's
                  reward is not the lower one: brevity must not teach a wrong `answer`

    quality = weighted mean of the parts that the task's score offers (`Score.quality`) and of brevity
    brevity = (longest - tokens) / (longest - shortest) among the right answers to a prompt; 1 if all are equally long

Both answers of a pair were sampled from the same prompt (question and variant), so it compares two texts that the
policy does write there. Identical answers to a prompt count once, and the same two texts make one pair per question.

A question gives at most `pairs_per_question` pairs, taken one by one, without chance. These rules choose the next pair,
each among those that the rules before it leave:

* correctness before quality;
* the rejected answer used least so far, so that one frequent mistake does not fill the limit;
* rejected answers that could be parsed first, as rejecting others teaches little more than the form;
* the chosen answer used least so far;
* the largest margin;
* the first sample.

Episodes of an environment give pairs of the first kind alone: success over failure from the same start. Unscorable
questions give no pairs. Left out: pairs across variants, and pairs of two wrong answers.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.core.errors import UserError
from posttrain.core.params import PairQuality, Pairs, Variant

Record = Mapping[str, Any]
Kind = Literal["correctness", "quality"]

KINDS: tuple[Kind, ...] = ("correctness", "quality")
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the prompt of question `id` in `variant`; margin > 0, of reward or of quality."""

    id: str
    variant: Variant
    kind: Kind
    chosen: str
    rejected: str
    margin: float


def make_pairs(samples: Sequence[Record], config: Pairs) -> list[Pair]:
    """At most `config.pairs_per_question` pairs from the samples of one question, best first."""
    if len({record["id"] for record in samples}) > 1:
        raise UserError(f"pairs of one question: draws of {samples[0]['id']} and others given")
    # Brevity is relative to the other answers to the prompt, so two variants may order two texts differently.
    made: dict[frozenset[str], tuple[Pair, bool]] = {}
    for draws in _distinct_by_variant(samples).values():
        by_quality = [] if "turns" in draws[0] else _quality_pairs(draws, config)
        for pair, parsed in [*_correctness(draws), *by_quality]:
            made.setdefault(frozenset((pair.chosen, pair.rejected)), (pair, parsed))
    return _pick(list(made.values()), config.pairs_per_question)


def qualities(right: Sequence[Record], weights: PairQuality) -> list[float]:
    """The quality in [0, 1] of each right answer to one prompt."""
    lengths = [record["tokens"] for record in right]
    longest, shortest = max(lengths, default=0), min(lengths, default=0)
    result = []
    for record in right:
        span = longest - shortest
        brevity = (longest - record["tokens"]) / span if span else 1.0
        parts = {**record["quality"], "brevity": brevity}
        offered = {name: weight for name, weight in weights.model_dump().items() if name in parts}
        total = sum(offered.values())
        if total <= 0:
            raise UserError(
                f"generator.pairs.quality: at least one weight of {', '.join(parts)} must be above 0"
            )
        result.append(sum(weight * parts[name] for name, weight in offered.items()) / total)
    return result


def split_held_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs), where all pairs of `share` of the questions, at least of one, are held out.

    The pairs of a single question are all for training.
    """
    questions = sorted({pair.id for pair in pairs})
    if len(questions) < 2:
        return list(pairs), []
    random.Random(f"{seed}/held out").shuffle(questions)
    count = min(max(round(share * len(questions)), 1), len(questions) - 1)
    held = set(questions[:count])
    return (
        [pair for pair in pairs if pair.id not in held],
        [pair for pair in pairs if pair.id in held],
    )


def statistics(pairs: Sequence[Pair], samples: Sequence[Record]) -> dict[str, float]:
    """Statistics of samples and of the pairs made from them; there may be none of either.

    questions = mixed (right and wrong answers) + all_right + all_wrong + unscorable. Shares of the samples:
    success_VARIANT (right ones), unparseable, repeated (same text to the same prompt). Of the pairs: their number by
    kind, the number of questions they come from, rejected_unparseable (a share), and the mean margin of each kind that
    has pairs.
    """
    questions = questions_by_verdict(samples)
    successes: dict[str, list[bool]] = defaultdict(list)
    for record in samples:
        successes[record["variant"]].append(bool(record["correct"]))
    status = {(r["id"], r["variant"], r["text"]): r["status"] for r in samples}
    scrap = sum(status[pair.id, pair.variant, pair.rejected] == "unparseable" for pair in pairs)
    unparseable = sum(record["status"] == "unparseable" for record in samples)
    margins = {kind: [pair.margin for pair in pairs if pair.kind == kind] for kind in KINDS}
    shares = {
        "unparseable": unparseable / len(samples) if samples else 0.0,
        "repeated": 1 - len(status) / len(samples) if samples else 0.0,
        "rejected_unparseable": scrap / len(pairs) if pairs else 0.0,
        **{f"success_{name}": _mean(right) for name, right in sorted(successes.items())},
        **{f"margin_{kind}": _mean(values) for kind, values in margins.items() if values},
    }
    return {
        "questions": len({record["id"] for record in samples}),
        **{verdict: len(ids) for verdict, ids in questions.items()},
        "questions_with_pairs": len({pair.id for pair in pairs}),
        "pairs": len(pairs),
        **{f"pairs_{kind}": len(values) for kind, values in margins.items()},
        **{name: round(value, DIGITS) for name, value in shares.items()},
    }


def questions_by_verdict(samples: Sequence[Record]) -> dict[str, set[str]]:
    """The ids of the questions: mixed (right and wrong samples), all_right, all_wrong and unscorable."""
    verdicts: dict[str, set[bool | None]] = defaultdict(set)
    for record in samples:
        right = None if record["status"] == "unscorable" else bool(record["correct"])
        verdicts[record["id"]].add(right)
    kinds: dict[str, set[bool | None]] = {
        "mixed": {True, False},
        "all_right": {True},
        "all_wrong": {False},
        "unscorable": {None},
    }
    return {
        name: {question for question, found in verdicts.items() if found == wanted}
        for name, wanted in kinds.items()
    }


def _distinct_by_variant(samples: Sequence[Record]) -> dict[str, list[Record]]:
    """By variant, the first scorable sample of each text, in the order sampled."""
    first: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in samples:
        if record["status"] != "unscorable":
            first[record["variant"]].setdefault(record["text"], record)
    return {variant: list(texts.values()) for variant, texts in first.items()}


def _correctness(draws: Sequence[Record]) -> list[tuple[Pair, bool]]:
    """All pairs of a right over a wrong answer, each with whether the wrong one could be parsed."""
    right = [record for record in draws if record["correct"]]
    wrong = [record for record in draws if not record["correct"]]
    made = []
    for chosen in right:
        for rejected in wrong:
            margin = round(chosen["reward"] - rejected["reward"], DIGITS)
            if margin > 0:
                parsed = rejected["status"] == "scored"
                made.append((_pair("correctness", chosen, rejected, margin), parsed))
    return made


def _quality_pairs(draws: Sequence[Record], config: Pairs) -> list[tuple[Pair, bool]]:
    right = [record for record in draws if record["correct"]]
    worth = qualities(right, config.quality)
    made = []
    for better, chosen in zip(worth, right, strict=True):
        for worse, rejected in zip(worth, right, strict=True):
            margin = round(better - worse, DIGITS)
            if margin > config.minimal_margin and chosen["reward"] >= rejected["reward"]:
                made.append((_pair("quality", chosen, rejected, margin), True))
    return made


def _pair(kind: Kind, chosen: Record, rejected: Record, margin: float) -> Pair:
    return Pair(chosen["id"], chosen["variant"], kind, chosen["text"], rejected["text"], margin)


def _pick(made: Sequence[tuple[Pair, bool]], limit: int) -> list[Pair]:
    """At most `limit` pairs, in the order of the module's docstring."""
    left = list(made)
    chosen: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    picked: list[Pair] = []
    while left and len(picked) < limit:
        best = min(
            range(len(left)),
            key=lambda i: (
                KINDS.index(left[i][0].kind),
                rejected[left[i][0].rejected],
                not left[i][1],
                chosen[left[i][0].chosen],
                -left[i][0].margin,
            ),
        )
        pair, _ = left.pop(best)
        chosen[pair.chosen] += 1
        rejected[pair.rejected] += 1
        picked.append(pair)
    return picked


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

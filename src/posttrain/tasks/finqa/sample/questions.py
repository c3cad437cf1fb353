"""Questions about a generated page: a kind with its holes filled, a wording, the program's value, and the gold facts."""

from __future__ import annotations

import re
from random import Random
from typing import Any

from posttrain.tasks.finqa.context import row_sentence
from posttrain.tasks.finqa.program import Answer, ExecutionError, execute, parse
from posttrain.tasks.finqa.sample.kinds import PRETRAINED, Kind, Levels
from posttrain.tasks.finqa.sample.pages import Item, Page, Relation

_LETTERS = "abc"
_FLOW = re.compile(
    r"\b(sales|revenue|expenses?|costs|charges|fees|payments|paid|expenditures|earned|written|income|"
    r"production|shipments|contributions|recoveries|repurchases|volumes?)\b"
)
_LEVEL = re.compile(
    r"\b(deferred|accumulated|prepaid|receivable|tooling|outstanding|incentives|bonds|issuance)\b"
)


def ask(page: Page, rng: Random, levels: Levels = PRETRAINED) -> dict[str, Any] | None:
    """The `qa` fields of a question about the page; None if the kind chosen from `levels` does not fit it."""
    kinds, _ = rng.choices(levels, [share for _, share in levels])[0]
    kind = rng.choices(kinds, [kind.weight for kind in kinds])[0]
    filled = _fill_relation(kind, page, rng) if kind.relation else _fill_items(kind, page, rng)
    if filled is None:
        return None
    operands, words, keys = filled
    program = kind.program.format(**operands)
    try:
        value = execute(parse(program), page.table)
    except ExecutionError:
        return None
    if kind.positive and not (isinstance(value, float) and value > 0):
        return None
    texts = page.pre_text + page.post_text
    facts = {}
    for key in sorted(keys):
        source, index = key.split("_")
        facts[key] = (
            row_sentence(page.table, int(index)) if source == "table" else texts[int(index)]
        )
    return {
        "question": rng.choice(kind.templates).format(**words),
        "answer": _as_a_person(value, kind.answer),
        "program": program,
        "gold_inds": facts,
        "exe_ans": value,
    }


Filled = tuple[dict[str, str], dict[str, str], set[str]]


def _fill_items(kind: Kind, page: Page, rng: Random) -> Filled | None:
    """Fill the holes with random items and years that have all values; None if the page has none."""
    holes = set(re.findall(r"\{(\w+)\}", kind.program))
    items: dict[str, Item] = {}
    for letter in _LETTERS:
        if letter in kind.needs:
            fitting = [
                i for i in page.items if _fits(i, kind.needs[letter]) and i not in items.values()
            ]
            if not fitting:
                return None
            items[letter] = rng.choice(fitting)
    count = max([int(hole[1]) + 1 for hole in holes if re.fullmatch(r"[abc]\d", hole)], default=0)
    years = sorted(set.intersection(*(set(item.literals) for item in items.values())))
    needs = " ".join(kind.needs.values()).split()
    if "latest" in needs:
        asked = years[-2:] if len(years) > 1 and years[-1] - years[-2] == 1 else None
    else:
        asked = _years(years, count, "gap" in needs, rng)
    if asked is None:
        return None
    operands, keys = _constants(page), set()
    for hole in holes:
        if hole in ("A", "B"):
            row = items[hole.lower()]
            operands[hole] = row.label
            keys.add(next(iter(row.keys.values())))
        elif hole == "n":
            operands[hole] = f"const_{asked[-1] - asked[0]}"
        elif hole == "total":
            total = next(item for item in page.items if item.label == f"total {items['a'].label}")
            operands[hole] = total.literals[0]
            keys.add(total.keys[0])
        elif hole[0] in items:
            year = asked[int(hole[1])] if hole[1:] else asked[0]
            operands[hole] = items[hole[0]].literals[year]
            keys.add(items[hole[0]].keys[year])
    words = {letter: item.label for letter, item in items.items()} | _units(page)
    words |= {"y": str(asked[0]), "yn": str(asked[-1]), "next": str(asked[-1] + 1)}
    words |= {f"y{index}": str(year) for index, year in enumerate(asked)}
    return operands, words, keys


def _years(years: list[int], count: int, gap: bool, rng: Random) -> list[int] | None:
    """One year, two (at least two apart if `gap`), or `count` consecutive ones; None if there are too few."""
    if count <= 1:
        return [rng.choice(years)] if years else None
    if count == 2:
        pairs = [(a, b) for a in years for b in years if a < b and (not gap or b - a >= 2)]
        # People ask about neighbouring years most.
        weights = [3.0 if b - a == 1 else 1.0 for a, b in pairs]
        return list(rng.choices(pairs, weights)[0]) if pairs else None
    runs = [years[start : start + count] for start in range(len(years) - count + 1)]
    runs = [run for run in runs if run[-1] - run[0] == count - 1]
    return rng.choice(runs) if runs else None


def _fill_relation(kind: Kind, page: Page, rng: Random) -> Filled | None:
    fitting = [relation for relation in page.relations if relation.kind == kind.relation]
    if not fitting:
        return None
    relation: Relation = rng.choice(fitting)
    operands, keys = _constants(page), {relation.key}
    span = str(rng.choice((2, 3, 4, 5)))
    words = _units(page) | {"y": str(relation.year), "who": relation.slots["who"], "span": span}
    operands["span"] = span
    if relation.item is None:
        operands |= {"shares": relation.slots["n"], "price": relation.slots["price"]}
    else:
        operands |= {"p": relation.slots["p"], "a": relation.item.literals[relation.year]}
        words["a"] = relation.item.label
        if "{a}" in kind.program:
            keys.add(relation.item.keys[relation.year])
    return operands, words, keys


def _fits(item: Item, need: str) -> bool:
    for word in need.split():
        if word in ("table", "text", "schedule"):
            if item.source != word:
                return False
        elif word in ("money", "percent", "bigger"):
            if item.kind != word:
                return False
        elif word in ("sum", "part"):
            if item.is_total != (word == "sum"):
                return False
        elif word == "flow" and not _is_flow(item):
            return False
    return True


def _is_flow(item: Item) -> bool:
    """Whether the label names an amount over a year, and not a level at its end."""
    return bool(_FLOW.search(item.label)) and not _LEVEL.search(item.label)


def _constants(page: Page) -> dict[str, str]:
    return {"dollars": "const_1000000" if page.unit == "million" else "const_1000"}


def _units(page: Page) -> dict[str, str]:
    return {"unit": page.unit, "bigger": "billion" if page.unit == "million" else "million"}


def _as_a_person(value: Answer, style: str) -> str:
    """The rounded answer that an annotator would write: "12.5%", "94", "yes"."""
    if isinstance(value, str):
        return value
    if style == "percent":
        return f"{value * 100:.1f}%"
    return f"{value:.2f}".rstrip("0").rstrip(".")

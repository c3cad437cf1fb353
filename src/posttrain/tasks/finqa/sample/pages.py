"""Generated pages: a table, sentences around it, and a record of what each number means.

A page comes from one random generator. Its `items` are everything that a question can ask about: an amount or rate with
a name, its literal operand for each year, and the fact that states it. Literals on a page are distinct, so that an
operand string identifies its place; only the distractors' numbers have no item.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from posttrain.tasks.finqa.sample import vocabulary as vocab


@dataclass(frozen=True, slots=True)
class Item:
    """Something with a value per year.

    kind: money, percent, bigger (text in the next larger unit) or total (no year). literals[year]: the operand as a
    program writes it. keys[year]: the fact (`table_2`, `text_0`) that shows it. A total over the years of a schedule
    has the single year 0.
    """

    label: str
    kind: str
    source: str
    literals: dict[int, str]
    keys: dict[int, str]
    is_total: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A sentence that relates numbers (share, growth or repurchase); `slots` are the values in it."""

    kind: str
    item: Item | None
    year: int
    slots: dict[str, str]
    key: str


@dataclass(slots=True)
class Page:
    """One generated page, in FinQA's fields, with the meaning of its numbers."""

    pre_text: list[str] = field(default_factory=list)
    post_text: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)
    years: list[int] = field(default_factory=list)
    unit: str = "million"
    schedule: bool = False
    company: str = ""
    items: list[Item] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)


def build_page(rng: Random, company: str, year: int) -> Page:
    """A random page of `company`'s annual report for `year`."""
    return _Writer(rng, company, year).page


class _Writer:
    def __init__(self, rng: Random, company: str, year: int) -> None:
        self.rng = rng
        self.year = year
        self.used: set[str] = set()
        self.page = Page(company=company, unit=rng.choice(("million", "million", "thousand")))
        self.decimals = rng.choice((0, 0, 0, 1, 2))
        self.scale = rng.uniform(2.0, 8.5)
        # The sentences, and what each states; its key follows at the end, when its place is known.
        self.sentences: list[str] = []
        self.stated: list[list[Item | Relation]] = []
        self.page.schedule = rng.random() < 0.18
        if self.page.schedule:
            self._schedule()
        else:
            self._statement()
        self._place()

    def _statement(self) -> None:
        """Write a table with years as columns."""
        rng, page = self.rng, self.page
        section = rng.choice(vocab.SECTIONS)
        count = rng.choices((2, 3, 4, 5), (35, 45, 10, 10))[0]
        years = [self.year - back for back in range(count)]
        style = rng.choice(("{}", "{}", "{}", "december 31 {}", "fiscal {}", "year ended {}"))
        shown = years if rng.random() < 0.75 else years[::-1]
        page.years = sorted(years)
        first = rng.choice(("", "", f"( in {page.unit}s )", f"in {page.unit}s"))
        page.table = [[first, *(style.format(year) for year in shown)]]
        adds_up = section.total is not None and rng.random() < 0.7
        labels = rng.sample(section.labels, rng.randint(2 if adds_up else 3, 6))
        rows = [self._series(label) for label in labels]
        if rng.random() < 0.2:
            rows.append(self._deduction(rng.choice(vocab.DEDUCTIONS)))
        if adds_up:
            assert section.total is not None
            sums = {year: sum(float(row.literals[year]) for row in rows) for year in years}
            literals = {year: f"{value:.{self.decimals}f}" for year, value in sums.items()}
            self.used.update(literals.values())
            rows.append(Item(section.total, "money", "table", literals, {}, is_total=True))
        if rng.random() < 0.35:
            rows.append(self._rate(rng.choice(section.rates)))
        dollars = section.dollars and rng.random() < 0.6
        for index, row in enumerate(rows):
            row.keys.update(dict.fromkeys(years, f"table_{index + 1}"))
            signed = dollars and row.kind == "money" and (index == 0 or row.is_total)
            page.table.append([row.label, *(_cell(row.literals[year], signed) for year in shown)])
        page.items += rows
        self._sentences(section.about, section.metrics, section.dollars)

    def _schedule(self) -> None:
        """Write a table with one row per coming year, and a total."""
        rng, page = self.rng, self.page
        about, columns, metrics = rng.choice(vocab.SCHEDULES)
        ahead = [self.year + step for step in range(1, rng.randint(4, 6))]
        chosen = rng.sample(columns, rng.randint(1, 2))
        page.years = [self.year - 1, self.year]
        page.table = [["", *chosen]]
        series = []
        for label in chosen:
            literals = {year: self._amount() for year in ahead}
            keys = {year: f"table_{index + 1}" for index, year in enumerate(ahead)}
            series.append(Item(label, "money", "schedule", literals, keys))
        for year in ahead:
            page.table.append(
                [str(year), *(_cell(item.literals[year], year == ahead[0]) for item in series)]
            )
        later = [self._amount() for _ in series]
        page.table.append(
            [rng.choice(("thereafter", "later years")), *(_cell(value, False) for value in later)]
        )
        totals = []
        for item, rest in zip(series, later, strict=True):
            amount = sum(map(float, item.literals.values())) + float(rest)
            totals.append(f"{amount:.{self.decimals}f}")
        page.table.append(["total", *(_cell(total, True) for total in totals)])
        keys = {0: f"table_{len(ahead) + 2}"}
        for item, literal in zip(series, totals, strict=True):
            total = Item(f"total {item.label}", "total", "schedule", {0: literal}, keys, True)
            page.items += [item, total]
        self._sentences(about, metrics, dollars=False)

    def _sentences(self, about: str, metrics: tuple[str, ...], dollars: bool) -> None:
        rng, page = self.rng, self.page
        introduction = rng.choice(vocab.INTRODUCTIONS)
        self._say(introduction.format(about=about, company=page.company, units=f"{page.unit}s"))
        for metric in rng.sample(metrics, rng.choice((1, 2, 2, 3))):
            self._metric(metric)
        table_items = [
            item for item in page.items if item.source == "table" and item.kind == "money"
        ]
        if table_items and rng.random() < 0.4:
            self._relation("share", rng.choice(table_items), vocab.SHARE_OF)
        if table_items and rng.random() < 0.3:
            self._relation("growth", rng.choice(table_items), vocab.GROWTH_OF)
        if rng.random() < 0.15:
            self._relation("repurchase", None, vocab.REPURCHASE)
        # A wrong number for an item of the table distracts better, if it can be said in dollars.
        label = rng.choice(table_items).label if dollars else rng.choice(metrics)
        for template in rng.sample(vocab.DISTRACTORS, rng.choice((0, 1, 1, 2))):
            self._say(self._fill(template, label))
        for template in rng.sample(vocab.PLAIN, rng.choice((1, 2, 2, 3))):
            self._say(self._fill(template, label))

    def _metric(self, metric: str) -> None:
        rng = self.rng
        bigger = rng.random() < 0.2
        unit = (
            {"million": "billion", "thousand": "million"}[self.page.unit]
            if bigger
            else self.page.unit
        )
        years = sorted(self.page.years)[-rng.choice((1, 2, 2, 3)) :]
        start = rng.uniform(1, 12) if bigger else self._size() * 0.4
        literals = self._walk(start, years, decimals=1 if bigger else self.decimals)
        templates = {1: vocab.AMOUNT_ONE, 2: vocab.AMOUNT_TWO, 3: vocab.AMOUNT_THREE}[len(years)]
        slots = {"v": literals[years[0]], "y": years[0]}
        for index, year in enumerate(years):
            slots |= {f"v{index}": literals[year], f"y{index}": year}
        item = Item(metric, "bigger" if bigger else "money", "text", literals, {})
        self._say(rng.choice(templates).format(metric=metric, unit=unit, **slots), item)

    def _relation(self, kind: str, item: Item | None, templates: tuple[str, ...]) -> None:
        rng = self.rng
        year = max(self.page.years) if kind == "growth" else rng.choice(self.page.years)
        slots = {"label": item.label if item else "", "who": rng.choice(vocab.WHO)}
        if kind == "repurchase":
            slots |= {"n": self._fresh(lambda: str(rng.randint(2_000, 950_000)))}
            slots |= {"price": self._fresh(lambda: f"{rng.uniform(8, 140):.2f}")}
        else:
            slots["p"] = self._percent(low=2, high=12 if kind == "growth" else 60)
        self._say(
            rng.choice(templates).format(y=year, **slots), Relation(kind, item, year, slots, "")
        )

    def _fill(self, template: str, label: str) -> str:
        rng = self.rng
        year = rng.choice(self.page.years)
        return template.format(
            label=label,
            unit=self.page.unit,
            y=year,
            before=min(self.page.years) - 1,
            later=max(self.page.years) + rng.randint(2, 9),
            v=self._amount(0.5) if "{v}" in template else "",
            n=self._fresh(lambda: str(rng.randint(800, 90_000))) if "{n}" in template else "",
            p=self._percent() if "{p}" in template else "",
            small=rng.randint(2, 19),
            small2=rng.randint(2, 19),
        )

    def _say(self, sentence: str, *stated: Item | Relation) -> None:
        self.sentences.append(sentence)
        self.stated.append(list(stated))

    def _place(self) -> None:
        """Shuffle the sentences around the table and give each item its fact's key."""
        rng, page = self.rng, self.page
        order = [0, *rng.sample(range(1, len(self.sentences)), len(self.sentences) - 1)]
        cut = rng.randint(1, max(1, len(order) - 1))
        # The introduction comes right before the table.
        order = order[1:cut] + order[:1] + order[cut:]
        texts = [self.sentences[index] for index in order]
        page.pre_text, page.post_text = texts[:cut], texts[cut:]
        for position, index in enumerate(order):
            key = f"text_{position}"
            for stated in self.stated[index]:
                if isinstance(stated, Item):
                    stated.keys.update(dict.fromkeys(stated.literals, key))
                    page.items.append(stated)
                else:
                    relation = Relation(stated.kind, stated.item, stated.year, stated.slots, key)
                    page.relations.append(relation)

    def _series(self, label: str) -> Item:
        literals = self._walk(self._size(), self.page.years, self.decimals)
        return Item(label, "money", "table", literals, {})

    def _deduction(self, label: str) -> Item:
        """A row of negative amounts, smaller than the others so that sums stay positive."""
        literals = self._walk(0.3 * self._size(), self.page.years, self.decimals)
        negative = {year: f"-{literal}" for year, literal in literals.items()}
        return Item(label, "money", "table", negative, {})

    def _rate(self, label: str) -> Item:
        literals = self._walk(self.rng.uniform(2, 45), self.page.years, decimals=1)
        return Item(
            label,
            "percent",
            "table",
            {year: f"{literal}%" for year, literal in literals.items()},
            {},
        )

    def _walk(self, value: float, years: list[int], decimals: int) -> dict[int, str]:
        """Yearly literals that move by about 15 % a year."""
        literals = {}
        for year in years:
            value = max(
                value * max(0.4, 1 + self.rng.gauss(0.02, 0.15)), 3.0 if decimals == 0 else 1.0
            )
            literals[year] = self._around(value, decimals)
        return literals

    def _around(self, value: float, decimals: int) -> str:
        return self._fresh(lambda: f"{value * self.rng.uniform(0.97, 1.03):.{decimals}f}")

    def _size(self) -> float:
        return max(3.0, math.exp(self.scale + self.rng.gauss(0, 0.85)))

    def _amount(self, share: float = 1.0) -> str:
        return self._fresh(lambda: f"{max(3.0, share * self._size()):.{self.decimals}f}")

    def _percent(self, low: float = 1.0, high: float = 48.0) -> str:
        digits = self.rng.choice((0, 1, 1, 2))
        return self._fresh(lambda: f"{self.rng.uniform(low, high):.{digits}f}%")

    def _fresh(self, draw: Callable[[], str]) -> str:
        """A literal that the page does not have yet and that does not look like a year."""
        for _ in range(100):
            literal = draw()
            number = literal.rstrip("%")
            is_year = len(number) == 4 and number.isdigit() and 1950 <= int(number) <= 2050
            if literal not in self.used and float(number) and not is_year:
                break
        else:
            # All numbers near the wanted one are taken (small whole ones run out), so step past them.
            percent = "%" if literal.endswith("%") else ""
            value = float(number)
            while literal in self.used or 1950 <= value <= 2050:
                value += 1
                literal = f"{value:.{len(number.partition('.')[2])}f}{percent}"
        self.used.add(literal)
        return literal


def _cell(literal: str, dollars: bool) -> str:
    """A literal as FinQA prints it in a table: "$ 5829", "-3 ( 3 )", "12.5% ( 12.5 % )"."""
    if literal.endswith("%"):
        return f"{literal} ( {literal[:-1]} % )"
    shown = f"$ {literal}" if dollars else literal
    return f"{shown} ( {literal[1:]} )" if literal.startswith("-") else shown

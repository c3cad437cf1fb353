"""Exercises that teach a small model to read a page: to find a cell by its row and column, then to write programs.

    world = World.from_rows(rows)                  # rows of a training split: real tables and sentences
    document = make_document(Random("0/17"), world)

A document is one page in sheet form with its exercises. There are three kinds of pages: those of the generated data set
(`sample`); tables of up to 20 rows x 7 columns with random labels and numbers, beside real sentences (`table`); and
real pages whose table rows are shuffled and mostly refilled with random numbers (`real`). Of the last two only a part
of the facts is shown, as by retrieval. The exercises:

    tag       "tag: net revenue"  3                    the number of a row or of a name in the text (T3), or a column's
                                                       letter, directly after its words
    look-up   "look up: net revenue in 2009"  B3 5829
    text      "look up: <the words before a number in the text>"  T4 12.5
    program   a question like those of `sample` about this page, and its JSON answer

Only the pages of the data set are used, not its questions and programs.

Left out: questions without a number on the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from posttrain.tasks.finqa import sheet
from posttrain.tasks.finqa.prompt import prompt as render_prompt
from posttrain.tasks.finqa.prompt import render_answer
from posttrain.tasks.finqa.sample import vocabulary
from posttrain.tasks.finqa.sample.pages import Item, Page, build_page
from posttrain.tasks.finqa.sample.questions import ask

Row = Mapping[str, Any]

_LOOK_UPS = (
    "{label} {heading}",
    "{heading} {label}",
    "what was {label} in {heading}?",
    "what is the {label} for {heading}?",
    "{label} for {heading}",
    "{label} in {heading}",
    "{label} , {heading}",
    "{heading} : {label}",
)
_HEADINGS = ("{}", "{}", "{}", "december 31 {}", "fiscal {}", "{} actual")
_PERIODS = (
    "first quarter",
    "second quarter",
    "third quarter",
    "fourth quarter",
    "total",
    "high",
    "low",
)
_LONGEST_LABEL = 80  # characters
_LONGEST_SENTENCE = 400


@dataclass(frozen=True, slots=True)
class Exercise:
    """A prompt that follows the page, and its answer.

    The page determines the first `certain` characters of the answer; the rest is a copied or computed number. The
    answer of a tag is one reference token, tokenised as it is after `context`.
    """

    kind: str
    prompt: str
    answer: str
    certain: int
    context: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A page and its exercises; `rows` x `columns` is the size of its table."""

    page: str
    exercises: list[Exercise]
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class World:
    """Sources of documents: real pages (`rows`), row labels, and single words of labels."""

    rows: Sequence[Row]
    labels: Sequence[str]
    words: Sequence[str]

    @classmethod
    def from_rows(cls, rows: Sequence[Row]) -> World:
        """Collect each page of a split in FinQA's format once; its questions are not read."""
        pages = list({row["filename"]: row for row in rows}.values())
        found = {line[0].strip() for page in pages for line in page["table"][1:] if line}
        ours = [
            name for section in vocabulary.SECTIONS for name in section.labels + section.metrics
        ]
        words = {word for name in ours for word in name.split() if len(word) > 2}
        labels = [name for name in found if name and len(name) < _LONGEST_LABEL]
        return cls(pages, sorted({*labels, *ours}), sorted(words))


@dataclass(frozen=True, slots=True)
class Size:
    """Choices for a random table: its numbers of rows, of columns, and of sentences beside it.

    plain: only years as headings, and every fact shown. alike: probability that a row's label differs from that of
    another row in its last word only.
    """

    rows: Sequence[int] = (3, 4, 5, 6, 6, 7, 8, 9, 10, 12, 14, 16, 20)
    columns: Sequence[int] = (1, 2, 2, 3, 3, 4, 5, 6, 7)
    sentences: Sequence[int] = (0, 1, 2, 3, 5, 8)
    plain: bool = False
    alike: float = 0.3


SMALL = Size(
    rows=(2, 3, 3, 4, 5, 6), columns=(1, 2, 2, 3, 3, 4), sentences=(0, 0, 0, 1), plain=True
)


def make_document(
    rng: Random,
    world: World,
    kind: str | None = None,
    size: Size | None = None,
    look_ups: int = 14,
    programs: int = 8,
) -> Document | None:
    """A random document, or None if its page offers no exercise.

    kind: sample, table or real; None for a random one.
    """
    kind = kind or rng.choices(("sample", "table", "real"), (3, 4, 3))[0]
    plain = size is not None and size.plain
    source: Page | None
    if kind == "sample":
        source = build_page(rng, _company(rng), rng.randint(2002, 2021))
        row: Row = {
            "pre_text": source.pre_text,
            "post_text": source.post_text,
            "table": source.table,
        }
        visible = _all_facts(row)
    else:
        row = _table_page(rng, world, size or Size()) if kind == "table" else _real_page(rng, world)
        visible = _all_facts(row) if plain else _some_facts(rng, row)
        source = _as_page(rng, row, visible)
    page = sheet.render_page(row, visible, "cells")
    exercises = _look_ups(rng, row["table"], page, look_ups)
    exercises += _text_look_ups(rng, page, look_ups // 2)
    if source is not None:
        exercises += _programs(rng, source, page, programs)
    if not exercises:
        return None
    return Document(page.text, exercises, len(row["table"]) - 1, len(row["table"][0]) - 1)


# ------------------------------------------------------------------------------------------- pages


def _company(rng: Random) -> str:
    parts = (vocabulary.COMPANY_FIRST, vocabulary.COMPANY_SECOND, vocabulary.COMPANY_LAST)
    return " ".join(rng.choice(part) for part in parts)


def _table_page(rng: Random, world: World, size: Size) -> Row:
    """A table with random labels and numbers, beside sentences of one real page."""
    count, columns = rng.choice(size.rows), rng.choice(size.columns)
    draw = rng.random()
    year = rng.randint(2000, 2019)
    if size.plain or draw < 0.7:
        style = rng.choice(_HEADINGS)
        headings = [style.format(year - back) for back in range(columns)]
        headings = headings[::-1] if rng.random() < 0.3 else headings
    elif draw < 0.85:
        headings = [_label(rng, world) for _ in range(columns)]
    else:
        headings = rng.sample(_PERIODS, min(columns, len(_PERIODS)))
    labels = _labels(rng, world, count, size.alike)
    if not size.plain and rng.random() < 0.1:
        headings = [_label(rng, world) for _ in range(columns)]
        labels = [str(year - back) for back in range(count)]
    corner = rng.choice(("", "", "( in millions )", "in thousands"))
    table = [[corner, *headings], *([name, *_cells(rng, len(headings))] for name in labels)]
    page = rng.choice(world.rows)
    text = [*page["pre_text"], *page["post_text"]]
    wanted = rng.choice(size.sentences)
    start = rng.randrange(max(1, len(text) - wanted + 1))
    text = [line for line in text[start : start + wanted] if len(line) < _LONGEST_SENTENCE]
    cut = rng.randint(0, len(text))
    return {"pre_text": text[:cut], "post_text": text[cut:], "table": table}


def _labels(rng: Random, world: World, count: int, alike: float) -> list[str]:
    """Distinct labels, a fraction `alike` of which differ from another in the last word only."""
    labels: list[str] = []
    while len(labels) < count:
        name = _label(rng, world)
        if labels and rng.random() < alike:
            words = rng.choice(labels).split()
            name = " ".join([*words[: max(1, len(words) - 1)], rng.choice(world.words)])
        if name not in labels:
            labels.append(name)
    return labels


def _label(rng: Random, world: World) -> str:
    if rng.random() < 0.75:
        return rng.choice(world.labels)
    return " ".join(rng.sample(world.words, rng.randint(1, 4)))


def _cells(rng: Random, count: int) -> list[str]:
    if rng.random() < 0.12:
        rates = [f"{rng.uniform(0.5, 95):.{rng.choice((0, 1, 2))}f}" for _ in range(count)]
        return [f"{rate}% ( {rate} % )" for rate in rates]
    cells = [_amount(rng) for _ in range(count)]
    if rng.random() < 0.05:
        cells[rng.randrange(count)] = rng.choice(("-", "n/a", "2014"))
    return cells


def _amount(rng: Random) -> str:
    """A random number as FinQA's tables print it, but not a year: "5829", "$ 12.5", "-3 ( 3 )"."""
    digits = rng.choice((0, 0, 0, 1, 1, 2))
    literal = f"{10 ** rng.uniform(0.3, 5.5 if digits == 0 else 4):.{digits}f}"
    if literal.isdigit() and 1950 <= int(literal) <= 2050:
        literal += "1"
    if rng.random() < 0.08:
        return f"-{literal} ( {literal} )"
    return f"$ {literal}" if rng.random() < 0.15 else literal


def _real_page(rng: Random, world: World) -> Row:
    """A real page with its table rows mostly shuffled and refilled, so that memorising it does not help."""
    page = rng.choice(world.rows)
    heading, *lines = ([*line] for line in page["table"])
    if rng.random() < 0.6:
        rng.shuffle(lines)
    if rng.random() < 0.6:
        for line in lines:
            for column in range(1, len(line)):
                literal = sheet.cell_literal(line[column])
                if literal and not literal.endswith("%"):
                    line[column] = _amount(rng)
    return {
        "pre_text": page["pre_text"],
        "post_text": page["post_text"],
        "table": [heading, *lines],
    }


def _all_facts(row: Row) -> set[str]:
    sentences = len(row["pre_text"]) + len(row["post_text"])
    return {f"text_{i}" for i in range(sentences)} | {
        f"table_{i}" for i in range(1, len(row["table"]))
    }


def _some_facts(rng: Random, row: Row) -> set[str]:
    """All table rows or about 60 % of them, and up to eight sentences."""
    facts = sorted(_all_facts(row))
    lines = [fact for fact in facts if fact.startswith("table_")]
    sentences = [fact for fact in facts if fact.startswith("text_")]
    if rng.random() < 0.5:
        lines = [line for line in lines if rng.random() < 0.6] or lines
    return {*lines, *rng.sample(sentences, min(len(sentences), rng.choice((0, 1, 2, 3, 4, 6, 8))))}


def _as_page(rng: Random, row: Row, visible: set[str]) -> Page | None:
    """The page with its visible rows under years as items to ask about; None if there are fewer than two."""
    table = row["table"]
    years: dict[int, int] = {}
    for column, heading in enumerate(table[0]):
        named = re.findall(r"\b(?:19|20)\d\d\b", heading)
        if column and len(named) == 1:
            years.setdefault(int(named[0]), column)
    labels = [line[0].strip() if line else "" for line in table]
    items: list[Item] = []
    used: set[str] = set()
    for index in range(1, len(table)):
        name = labels[index]
        if f"table_{index}" not in visible or not _is_name(name) or labels.count(name) > 1:
            continue
        literals = {}
        for year, column in years.items():
            literal = (
                sheet.cell_literal(table[index][column]) if column < len(table[index]) else None
            )
            if literal and literal not in used and float(literal.rstrip("%")):
                literals[year] = literal
                used.add(literal)
        if literals and len(literals) == len(years):
            percent = any(literal.endswith("%") for literal in literals.values())
            keys = dict.fromkeys(literals, f"table_{index}")
            kind = "percent" if percent else "money"
            items.append(Item(name, kind, "table", literals, keys, name.startswith("total")))
    if len(items) < 2:
        return None
    unit = rng.choice(("million", "thousand"))
    texts = {"pre_text": row["pre_text"], "post_text": row["post_text"], "table": table}
    return Page(**texts, years=sorted(years), unit=unit, items=items)


def _is_name(label: str) -> bool:
    """Whether programs can contain the label: brackets, commas and # have a meaning in programs."""
    return bool(label) and not re.search(r"[(),#]", label)


# --------------------------------------------------------------------------------------- exercises


def _look_ups(
    rng: Random, table: Sequence[Sequence[str]], page: sheet.Page, count: int
) -> list[Exercise]:
    """Look-ups of cells with unique row and column names, and tags of these names."""
    labels = [line[0].strip() if line else "" for line in table]
    headings = [heading.strip() for heading in table[0]]
    cells = []
    for name in page.references:
        match = re.fullmatch(r"([B-S])(\d+)", name)
        if match:
            row, column = int(match[2]) - 1, ord(match[1]) - ord("A")
            if row < 1 or column >= len(headings):
                continue
            label, heading = labels[row], headings[column]
            alone = bool(heading) or len(headings) == 2
            if label and alone and labels.count(label) == 1 and headings.count(heading) == 1:
                cells.append((match[1], match[2], label, heading))
    rng.shuffle(cells)
    exercises = []
    tagged: set[str] = set()
    for letter, number, label, heading in cells[:count]:
        words = _abridged(rng, label, labels)
        asked = rng.choice(_LOOK_UPS).format(label=words, heading=heading).strip()
        name = f"{letter}{number}"
        exercises.append(_look_up(asked, name, page.references[name]))
        if heading and heading not in tagged:
            exercises.append(Exercise("tag", f"\ntag: {heading}", letter, 1))
        if label not in tagged:
            asked = f"\ntag: {_abridged(rng, label, labels)}"
            exercises.append(Exercise("tag", asked, number, len(number), context="A"))
        tagged |= {heading, label}
    return exercises


def _text_look_ups(rng: Random, page: sheet.Page, count: int) -> list[Exercise]:
    """Look-ups of numbers in the text by the words before them, if these words are unique, and tags of these words."""
    before = {name: words for name, words in page.names.items() if re.fullmatch(r"T\d+", name)}
    told = list(before.values())
    names = [
        name for name, words in before.items() if told.count(words) == 1 and len(words.split()) > 2
    ]
    rng.shuffle(names)
    exercises = []
    for name in names[:count]:
        words = before[name]
        exercises.append(_look_up(words, name, page.references[name], "text"))
        number = name.removeprefix("T")
        exercises.append(Exercise("tag", f"\ntag: {words}", number, len(number), context="T"))
    return exercises


def _look_up(asked: str, name: str, literal: str, kind: str = "look-up") -> Exercise:
    return Exercise(kind, f"\nlook up: {asked}\nanswer:", f"\n{name} {literal}", len(name) + 1)


def _abridged(rng: Random, label: str, labels: Sequence[str]) -> str:
    """The label, sometimes without one of its words, as people ask, unless another label contains the words left."""
    words = label.split()
    if len(words) > 2 and rng.random() < 0.25:
        words.pop(rng.randrange(len(words)))
        if any(_has_in_order(other.split(), words) for other in labels if other != label):
            return label
    return " ".join(words)


def _has_in_order(words: Sequence[str], wanted: Sequence[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)


def _programs(rng: Random, source: Page, page: sheet.Page, count: int) -> list[Exercise]:
    exercises: dict[str, Exercise] = {}
    for _ in range(2 * count):
        qa = ask(source, rng)
        if qa is None or qa["question"] in exercises or len(exercises) == count:
            continue
        program = sheet.to_cells(qa["program"], page, qa["question"], set(qa["gold_inds"]))
        answer = f"\n{render_answer(program, str(qa['exe_ans']))}"
        certain = answer.rindex('"answer":') + len(
            '"answer":'
        )  # a quote and a sign may be one token
        asked = {"input_text": page.text, "question": qa["question"], "operands": "cells"}
        prompt = render_prompt(asked)[len(page.text) :]
        exercises[qa["question"]] = Exercise("program", prompt, answer, certain)
    return list(exercises.values())

"""A data set in FinQA's layout, generated from a seed: the default, because it needs no network.

    splits = generate(seed=0, sizes={"train": 2200, "val": 300, "test": 500})

Pages read like annual reports (14 kinds of tables, about 160 line items, sentences that matter and sentences that do
not). Each has two to four questions over table, text or both, with all ten operations and one to five steps. Every row
executes to its `exe_ans`. Companies, and so pages, are disjoint between splits. The same seed gives the same bytes;
page k of a split does not depend on the sizes.

A share `unseen` of the questions is of kinds that the model `pocket` was not pretrained on; without them (0) there is
nothing left for it to learn. At 0.5, of the 2,000 questions of seed 0, 54 % take one step, 35 % two and 11 % more
(FinQA: 59, 32, 8).

Left out: the length of real pages (a median of 660 words there, about 180 here), tables without years, and wrong or
ambiguous annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, islice
from random import Random
from typing import Any

from posttrain.tasks.finqa.sample import vocabulary
from posttrain.tasks.finqa.sample.kinds import PRETRAINED, Levels
from posttrain.tasks.finqa.sample.pages import build_page
from posttrain.tasks.finqa.sample.questions import ask
from posttrain.tasks.finqa.sample.unseen import UNSEEN

UNSEEN_SHARE = 0.5
_ATTEMPTS = 60


def generate(
    seed: int, sizes: Mapping[str, int], unseen: float = UNSEEN_SHARE
) -> dict[str, list[dict[str, Any]]]:
    """Rows of each split, in FinQA's layout; `sizes` maps split names to numbers of rows.

    unseen: the probability that a question is of a kind that `pocket` was not pretrained on.
    """
    return {name: list(rows) for name, rows in iterate_splits(seed, sizes, unseen).items()}


def iterate_splits(
    seed: int, sizes: Mapping[str, int], unseen: float = UNSEEN_SHARE
) -> dict[str, Iterator[dict[str, Any]]]:
    """The rows of `generate`, one page at a time."""
    companies = _companies(seed, len(sizes))
    return {
        name: islice(_rows(f"{seed}/{name}", companies[index], unseen), size)
        for index, (name, size) in enumerate(sorted(sizes.items()))
    }


def _companies(seed: int, groups: int) -> list[list[str]]:
    """Company names with distinct tickers, in disjoint groups for the splits."""
    rng = Random(f"{seed}/companies")
    names = [f"{a} {b}" for a in vocabulary.COMPANY_FIRST for b in vocabulary.COMPANY_SECOND]
    rng.shuffle(names)
    names = list({_ticker(name): name for name in names}.values())
    return [names[group::groups] for group in range(groups)]


def _rows(key: str, companies: list[str], unseen: float) -> Iterator[dict[str, Any]]:
    for number in count():
        rng = Random(f"{key}/{number}")
        yield from _page_rows(rng, companies[number % len(companies)], number, unseen)


def _page_rows(rng: Random, name: str, number: int, unseen: float) -> list[dict[str, Any]]:
    year = rng.randint(2002, 2021)
    page = build_page(rng, f"{name} {rng.choice(vocabulary.COMPANY_LAST)}", year)
    # Ticker and page number keep names unique, however many pages a company gets.
    filename = f"{_ticker(name)}/{year}/page_{number + 1}.pdf"
    wanted = rng.choice((2, 3, 3, 4))
    questions: list[dict[str, Any]] = []
    levels = _levels(rng, unseen)
    for _ in range(_ATTEMPTS):
        qa = ask(page, rng, levels)
        if qa and all(
            qa["program"] != other["program"] and qa["question"] != other["question"]
            for other in questions
        ):
            questions.append(qa)
            levels = _levels(rng, unseen)
        if len(questions) == wanted:
            break
    return [
        {
            "pre_text": page.pre_text,
            "post_text": page.post_text,
            "filename": filename,
            "table": page.table,
            "id": f"{filename}-{index + 1}",
            "qa": qa,
        }
        for index, qa in enumerate(questions)
    ]


def _levels(rng: Random, unseen: float) -> Levels:
    """The kinds of the next question; with `unseen` 0 it uses no random number, and leaves them all to `ask`."""
    return UNSEEN if unseen and rng.random() < unseen else PRETRAINED


def _ticker(name: str) -> str:
    first, second = name.split()
    return (first[:3] + second[:3]).upper()

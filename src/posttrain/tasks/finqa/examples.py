"""FinQA's examples, made from audited rows, and measures of the pages that models will see.

    example = make_example(row, context="retrieved", top_n=8, operands="cells")

An example holds the page's text as shown and in parts, the gold program in the operand form asked for and as in the
data set, the answer's text, the raw table, the literal of each visible reference (`references`, in both forms), and how
many of the search's facts are needed (`needed`). The measures are the recall@n of the search, for the gold facts and
for the program's operands, and the share of operands that can be written as references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.core.files import iterate_jsonl
from posttrain.core.params import Params
from posttrain.tasks.finqa.context import page_facts, rank_facts, select_facts
from posttrain.tasks.finqa.program import ProgramError, format_answer, parse
from posttrain.tasks.finqa.sheet import header_literal, render_page, text_numbers, to_cells

RECALL_AT = (1, 3, 5, 8, 12, 16)


def examples(params: Params, split: str, source: Path) -> Iterator[dict[str, Any]]:
    """The examples of a split, from the audited rows in `source`."""
    shown = params.examples
    for row in iterate_jsonl(source / f"{split}.jsonl"):
        yield make_example(row, shown.context, shown.top_n, params.operands)


def make_example(row: Mapping[str, Any], context: str, top_n: int, operands: str) -> dict[str, Any]:
    """One example; `context` is full, retrieved or gold, `operands` cells or literal."""
    qa = row["qa"]
    visible = select_facts(row, context, top_n)
    page = render_page(row, visible, operands, sentences=context != "full")
    program = qa["program"]
    if operands == "cells":
        program = to_cells(program, page, qa["question"], qa["gold_inds"].keys())
    return {
        "id": row["id"],
        "input_text": page.text,
        "page": page.parts,
        "question": qa["question"],
        "target_program": program,
        "target_answer": format_answer(qa["exe_ans"]),
        "literal_program": qa["program"],
        "exe_ans": qa["exe_ans"],
        "table": row["table"],
        "references": page.references,
        "operands": operands,
        "facts": len(visible),
        "gold_facts": len(qa["gold_inds"].keys() & visible),
        "needed": search_depths(row),
    }


def measure(examples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Measures of one split, whose examples are iterated over three times."""
    words = [len(example["input_text"].split()) for example in examples]
    return {
        "words_mean": _share(sum(words), len(words)),
        "recall": retrieval_recall(example["needed"] for example in examples),
        "operands": operand_coverage(examples),
    }


def search_depths(row: Mapping[str, Any]) -> dict[str, int | None]:
    """How many of the search's best facts hold all gold facts, and how many all operands of the program; None if none
    do.

    The table's header counts as shown. An operand counts as shown if a fact has a number written exactly like it or,
    for a table operation, if the row with that label is shown.
    """
    facts = page_facts(row)
    ranking = [facts[index] for index in rank_facts(row["qa"]["question"], facts)]
    header = (
        {literal for cell in row["table"][0][1:] if (literal := header_literal(cell))}
        if row["table"]
        else set()
    )
    gold = row["qa"]["gold_inds"].keys() - {"table_0"}
    operands = program_operands(row["qa"]["program"]) - header
    literals = [_fact_literals(fact.text) | {fact.label} for fact in ranking]
    return {
        "gold_facts": _depth(gold, [{fact.key} for fact in ranking]),
        "operands": _depth(operands, literals),
    }


def retrieval_recall(depths: Iterable[Mapping[str, int | None]]) -> dict[str, dict[str, float]]:
    """Share of the questions whose gold facts, and whose operands, are all among the search's n best facts.

    depths: `search_depths` of each question.
    """
    found = {name: dict.fromkeys(RECALL_AT, 0) for name in ("gold_facts", "operands")}
    count = 0
    for needed in depths:
        count += 1
        for name, at in found.items():
            depth = needed[name]
            for n in RECALL_AT:
                at[n] += depth is not None and depth <= n
    return {
        name: {f"at_{n}": _share(hits, count) for n, hits in at.items()}
        for name, at in found.items()
    }


def operand_coverage(examples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """How many of the gold programs' operands (without constants and #k) the page's references cover."""
    count = total = visible = ambiguous = as_reference = complete = 0
    for example in examples:
        count += 1
        literals: dict[str, int] = {}
        for literal in example["references"].values():
            literals[literal] = literals.get(literal, 0) + 1
        operands = _operand_list(example["literal_program"])
        total += len(operands)
        visible += sum(operand in literals for operand in operands)
        ambiguous += sum(literals.get(operand, 0) > 1 for operand in operands)
        complete += all(operand in literals for operand in operands)
        as_reference += sum(
            operand in example["references"] for operand in _operand_list(example["target_program"])
        )
    return {
        "total": total,
        "visible": _share(visible, total),
        "ambiguous": _share(ambiguous, total),
        "as_reference": _share(as_reference, total),
        "programs_fully_visible": _share(complete, count),
    }


def program_operands(program_text: str) -> set[str]:
    """The literal operands of a program: numbers and row labels, without constants, #k and none."""
    return set(_operand_list(program_text))


def _operand_list(program_text: str) -> list[str]:
    try:
        program = parse(program_text)
    except ProgramError:
        return []
    operands = [operand for step in program for operand in (step.arg1, step.arg2)]
    return [
        operand
        for operand in operands
        if not operand.startswith(("#", "const_")) and operand != "none"
    ]


def _fact_literals(text: str) -> set[str]:
    years = {word.strip("(),.;") for word in text.split() if word.strip("(),.;").isdigit()}
    return years | {literal for _, _, literal in text_numbers(text)}


def _depth(needed: set[str], ranking: Sequence[set[str]]) -> int | None:
    """How many of the ranked facts contain all that is needed; None if even all of them do not."""
    missing = set(needed)
    for depth, found in enumerate(ranking, start=1):
        if not missing:
            return depth - 1
        missing -= found
    return None if missing else len(ranking)


def _share(part: float, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0

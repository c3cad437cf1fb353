"""Turn audited FinQA rows into the examples that every later stage reads, and measure what the
model will see.

    example = prepare_row(row, context="retrieved", top_n=8, operands="cells")

An example holds the page's text as shown, the gold program in the operand form asked for and as in
the data set, the answer's text, the raw table, and what each visible reference stands for
(`references`, filled in both forms). The measures say how often the facts shown contain everything
that the gold program needs: recall@n of the search against the gold facts and against the program's
operands, and the share of operands that can be written as references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.core.files import JsonLines, atomic_directory, write_jsonl
from posttrain.core.params import Params
from posttrain.tasks.finqa.context import page_facts, rank_facts, select_facts
from posttrain.tasks.finqa.load import SPLIT_FILES
from posttrain.tasks.finqa.program import ProgramError, format_answer, parse
from posttrain.tasks.finqa.sheet import header_literal, render_page, text_numbers, to_cells

RECALL_AT = (1, 3, 5, 8, 12, 16)


def prepare(params: Params, source: Path, directory: Path) -> dict[str, Any]:
    """Write {train,val,test}.jsonl of examples, made from those in `source`; return measures."""
    metrics: dict[str, Any] = {}
    context, top_n = params.prepare.context, params.prepare.top_n
    with atomic_directory(directory) as output:
        for split in SPLIT_FILES:
            rows = JsonLines(source / f"{split}.jsonl")
            examples = JsonLines(output / f"{split}.jsonl")
            made = (prepare_row(row, context, top_n, params.operands) for row in rows)
            write_jsonl(examples.path, made)
            metrics[split] = measure(rows, examples)
    return metrics


def prepare_row(row: Mapping[str, Any], context: str, top_n: int, operands: str) -> dict[str, Any]:
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
    }


def measure(
    rows: Iterable[Mapping[str, Any]], examples: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Counts and shares over one split; the examples, iterated over twice, were prepared from the rows."""
    words = [len(example["input_text"].split()) for example in examples]
    return {
        "examples": len(words),
        "words_mean": _share(sum(words), len(words)),
        "recall": retrieval_recall(rows),
        "operands": operand_coverage(examples),
    }


def retrieval_recall(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of questions whose gold facts, and whose operands, are all among the n best facts of
    the search.

    The header of the table counts as shown. An operand counts as found when a shown fact has a
    number written exactly so, or, for a table operation, when the row with that label is shown; one
    that is nowhere on the page is never found.
    """
    facts_found = dict.fromkeys(RECALL_AT, 0)
    operands_found = dict.fromkeys(RECALL_AT, 0)
    count = 0
    for row in rows:
        count += 1
        facts = page_facts(row)
        ranking = [facts[index] for index in rank_facts(row["qa"]["question"], facts)]
        header = (
            {literal for cell in row["table"][0][1:] if (literal := header_literal(cell))}
            if row["table"]
            else set()
        )
        gold = row["qa"]["gold_inds"].keys() - {"table_0"}
        needed = program_operands(row["qa"]["program"]) - header
        gold_rank = _depth(gold, [{fact.key} for fact in ranking])
        operand_rank = _depth(
            needed, [_fact_literals(fact.text) | {fact.label} for fact in ranking]
        )
        for n in RECALL_AT:
            facts_found[n] += gold_rank <= n
            operands_found[n] += operand_rank <= n
    return {
        "gold_facts": {f"at_{n}": _share(facts_found[n], count) for n in RECALL_AT},
        "operands": {f"at_{n}": _share(operands_found[n], count) for n in RECALL_AT},
    }


def operand_coverage(examples: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """How many operands of the gold programs (no constants, no #k) the page's references cover."""
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


def _depth(needed: set[str], ranking: Sequence[set[str]]) -> float:
    """How many ranked facts contain all that is needed; infinite when some is in none."""
    missing = set(needed)
    for depth, found in enumerate(ranking, start=1):
        if not missing:
            return depth - 1
        missing -= found
    return len(ranking) if not missing else float("inf")


def _share(part: float, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0

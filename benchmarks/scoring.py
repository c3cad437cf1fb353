"""Rows per second of FinQA's official verdicts on one core, and a profile.

    PYTHONPATH=src python benchmarks/scoring.py [--oracle FILE] [--split FILE]

Cold: a fresh process with empty caches, and sympy not yet imported (the figure includes its import if a row needs it).
Warm: the same rows again. Execution alone keeps no cache, so its two passes differ only by noise. Exits with status 1 if a
verdict differs from the oracle's.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain.core.files import read_json, read_jsonl
from posttrain.tasks.finqa import equivalence
from posttrain.tasks.finqa.official import execute_tokens, official_verdict
from posttrain.tasks.finqa.score import score

SHARED = Path(__file__).resolve().parents[2] / "shared"


def rate(function: Callable[..., Any], rows: list[tuple[Any, ...]]) -> tuple[float, list[Any]]:
    """Rows per second of one pass, and its results."""
    start = time.perf_counter()
    results = [function(*row) for row in rows]
    return len(rows) / (time.perf_counter() - start), results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    oracle_default = SHARED / "oracles/finqa_official_verdicts_dev.jsonl"
    parser.add_argument("--oracle", type=Path, default=oracle_default)
    parser.add_argument("--split", type=Path, default=SHARED / "datasets/finqa/dev.json")
    parser.add_argument("--top", type=int, default=8, help="functions in the profile")
    options = parser.parse_args()
    oracle = read_jsonl(options.oracle)
    examples = {row["id"]: row for row in read_json(options.split)}
    both, alone, answers = [], [], []
    for row in oracle:
        example = examples[row["id"]]
        qa, table = example["qa"], example["table"]
        both.append((row["predicted"], qa["program"], qa["exe_ans"], table))
        alone.append((row["predicted"], table))
        as_example = {"id": row["id"], "exe_ans": qa["exe_ans"], "literal_program": qa["program"]}
        as_example |= {"table": table, "references": {}, "operands": "literal", "tolerance": 0.01}
        steps = qa["program"].replace("), ", ")\n").split("\n")
        listed = ", ".join(f'"{step}"' for step in steps)
        answers.append((f'{{"program": [{listed}], "answer": "{qa["exe_ans"]}"}}', as_example))

    cold, verdicts = rate(official_verdict, both)
    asked = equivalence._compare.cache_info()
    warm, _ = rate(official_verdict, both)
    execution_cold, executed = rate(execute_tokens, alone)
    execution_warm, _ = rate(execute_tokens, alone)
    scores, _ = rate(score, answers)
    right = sum(
        verdict == (row["exe_correct"], row["prog_correct"])
        and result == (bool(row["exe_invalid"]), row["exe_result"])
        for row, verdict, result in zip(oracle, verdicts, executed, strict=True)
    )
    print(f"verdicts equal to the oracle   {right} of {len(oracle)}")
    print(f"both verdicts, cold            {cold:>10,.0f} rows/s")
    print(f"both verdicts, warm            {warm:>10,.0f} rows/s")
    print(f"execution alone, first pass    {execution_cold:>10,.0f} rows/s")
    print(f"execution alone, second pass   {execution_warm:>10,.0f} rows/s")
    print(f"score of the gold answers      {scores:>10,.0f} rows/s")
    print(f"pairs that needed sympy        {asked.misses:>10,}")

    profile = cProfile.Profile()
    profile.runcall(rate, official_verdict, both)
    print("\nboth verdicts, warm, by time inside each function:")
    pstats.Stats(profile, stream=sys.stdout).strip_dirs().sort_stats("tottime").print_stats(
        options.top
    )
    return 0 if right == len(oracle) else 1


if __name__ == "__main__":
    sys.exit(main())

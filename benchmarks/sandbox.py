"""Programs per second in the sandbox, by workers, beside the same programs run without it.

    python benchmarks/sandbox.py [--runs 200] [--workers 1 2] [--inputs 1 5]

The program reads a line and prints it reversed, for each of its inputs. Of three rounds the fastest counts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from posttrain.tasks.sandbox import run_all

PROGRAM = "print(input()[::-1])"
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--inputs", type=int, nargs="+", default=[1, 5], help="of each program")
    options = parser.parse_args()
    print("| workers | inputs | programs per second | ms per program | without sandbox |")
    print("|---|---|---|---|---|")
    for workers in options.workers:
        outside = seconds(partial(plain, options.runs, workers))
        for inputs in options.inputs:
            inside = seconds(partial(inside_sandbox, options.runs, inputs, workers))
            cells = [
                str(workers),
                str(inputs),
                f"{options.runs / inside:.0f}",
                f"{1000 * inside * workers / options.runs:.0f}",
                f"{options.runs / outside / inputs:.0f}",
            ]
            print(f"| {' | '.join(cells)} |")


def seconds(act: Callable[[], None]) -> float:
    """Seconds of the fastest of the rounds."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        act()
        found.append(time.perf_counter() - start)
    return min(found)


def inside_sandbox(runs: int, inputs: int, workers: int) -> None:
    texts = [f"{number}\n" for number in range(inputs)]
    found = run_all([(PROGRAM, texts)] * runs, workers=workers)
    assert all(result.status == "ok" for results in found for result in results)


def plain(runs: int, workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(_plain, range(runs)))


def _plain(number: int) -> None:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    subprocess.run(command, input=f"{number}\n", text=True, capture_output=True, check=True)


if __name__ == "__main__":
    main()

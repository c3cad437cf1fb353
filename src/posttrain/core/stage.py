"""What every stage does around its work: read params, run, and turn a user's mistake into one line.

    def main(params: Params) -> None: ...

    if __name__ == "__main__":
        run(main)

Arguments of the command line follow `params` (`python stages/rl_selector.py ppo 0`). What a stage cost goes to
logs/times.jsonl, outside DVC's outputs, for `python -m posttrain.report.cost`.

Under `accelerate launch` a stage is started on several processes. One that can share its work says so by
`run(main, shared=True)`; of any other only the main process runs.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NoReturn

from posttrain.core.cost import RANK, note_cost
from posttrain.core.errors import UserError
from posttrain.core.params import load_params

GRACE = 10  # seconds


def run(main: Callable[..., None], shared: bool = False) -> None:
    """Call `main(params, *arguments)`; exit 1 with one line on a mistake or a failing disk.

    shared: whether every process that was started calls `main`, or the main one alone.
    """
    if RANK and not shared:
        return
    name = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _quieten_transformers()
    _flush_denormals()
    try:
        params, started = load_params(), time.monotonic()
        with _main_process_speaks():
            main(params, *sys.argv[1:])
        note_cost(params, Path(sys.argv[0]).stem, sys.argv[1:], time.monotonic() - started)
    except UserError as error:
        _fail(f"{name}: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        _fail(f"{name}: interrupted")
    _leave()


@contextmanager
def _main_process_speaks() -> Iterator[None]:
    """The other processes print nothing and show no bars, only errors."""
    if not RANK:
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def _fail(line: str) -> NoReturn:
    # Most mistakes are seen by all processes. The launcher ends the others when one has failed, so all but the main one
    # give it the time to be the one that speaks.
    if RANK:
        time.sleep(GRACE)
    sys.exit(line)


def _leave() -> None:
    """Take leave of the other processes; only a stage that has imported torch can have joined them."""
    if "torch" in sys.modules:
        import torch.distributed

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def read_seed(text: str) -> int:
    """The SEED argument of a stage."""
    if not text.isdigit():
        raise UserError(f"seed {text!r}: expected a number of 0 or more")
    return int(text)


def _quieten_transformers() -> None:
    """No bars for reading and writing shards, and errors only; downloads keep theirs."""
    if "transformers" not in sys.modules:  # importing it takes seconds, and data stages do without
        return
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()


def _flush_denormals() -> None:
    """Let numbers below 1e-38 count as 0: the gradients of a model that is sure are full of them, and they slow a CPU
    down. Threads inherit it, so it comes before torch starts its own.
    """
    if "torch" in sys.modules:
        import torch

        torch.set_flush_denormal(True)

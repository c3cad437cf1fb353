"""What every stage does around its work: read params, run, and turn a user's mistake into one line.

    def main(params: Params) -> None: ...

    if __name__ == "__main__":
        run(main)

Arguments of the command line follow `params` (`python stages/rl_selector.py ppo 0`). What a stage cost goes to
logs/times.jsonl, outside DVC's outputs, for `python -m posttrain.evaluation.cost`.

Under `accelerate launch` a stage is started on several processes. One that can share its work says so by
`run(main, shared=True)`; of any other only the main process runs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import NoReturn

from posttrain.errors import UserError
from posttrain.params import Params, load_params

TIMES = Path("logs/times.jsonl")

# Tokens that models of this process have read, pads included, in forward passes of whatever purpose (`models.load`).
READ: Counter[str] = Counter(tokens=0)
RANK = int(os.environ.get("RANK", "0"))  # set by the launcher, 0 for the main process
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


def note_cost(params: Params, stage: str, arguments: Sequence[str], seconds: float) -> None:
    """Add a line to logs/times.jsonl: what ran, on which data set and model, its seconds, peak memory in MiB and tokens.

    The memory is the process's largest resident size, or what it allocated of a GPU if it used one. Of several
    processes it is the main one that speaks of itself.
    """
    if RANK:
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        peak = torch.cuda.max_memory_allocated()
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    line = {
        "stage": stage,
        "arguments": list(arguments),
        "dataset": params.dataset,
        "model": params.model,
        "seconds": round(seconds, 2),
        "peak_mib": round(peak / 2**20),
        "tokens": READ["tokens"],
    }
    TIMES.parent.mkdir(exist_ok=True)
    with TIMES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


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

"""The frame of every stage: read params, check the code, run, and turn a user's mistake into one line.

    def main(params: Params) -> None: ...

    if __name__ == "__main__":
        run(main)

Arguments of the command line follow `params` (`python stages/selector_rl.py ppo 0`). The cost of a stage goes to
logs/times.jsonl (`core/cost.py`).

A stage that DVC runs ends with it: if DVC is killed, nobody would record the result, and the next `dvc repro` would run
the stage beside this one. A training resumes from its last checkpoint. A stage started by hand outlives its shell.

Under `accelerate launch` a stage is started in several processes. A stage that can share its work calls
`run(main, shared=True)`; any other runs in the main process only.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from _thread import interrupt_main
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from inspect import signature
from pathlib import Path
from threading import Thread
from typing import NoReturn

from posttrain.core.code import CODE, check, consumer
from posttrain.core.cost import RANK, note_cost
from posttrain.core.errors import UserError
from posttrain.core.params import load_params
from posttrain.core.plan import announce

GRACE = 10  # seconds
LOOK = 1  # seconds between looks at whether DVC is still there
# Beginnings of warnings that libraries give about each other, about which the user can do nothing.
LIBRARY_WARNINGS = (
    # PEFT and TRL use names of transformers 5 that version 6 will not have.
    "`is_gradient_checkpointing` is deprecated",
    "`gradient_checkpointing_enable` is deprecated",
    "`gradient_checkpointing_disable` is deprecated",
    # TrainingArguments offers torch's old name only.
    "`broadcast_buffers` is deprecated",
)


def run(main: Callable[..., None], shared: bool = False) -> None:
    """Call `main(params, *arguments)`; exit with status 1 and one line on a `UserError` or `OSError`.

    shared: whether every process calls `main`, or the main process alone.
    """
    gc.freeze()  # the modules are no garbage
    gc.enable()
    if RANK and not shared:
        return
    script = Path(sys.argv[0])
    name = os.environ.get("DVC_STAGE") or script.stem
    # A stage may have the name of a standard module (`code`), which must stay importable.
    sys.path[:] = [place for place in sys.path if Path(place) != script.resolve().parent]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quieten()
    _flush_denormals()
    _end_with_dvc(name)
    try:
        params, started = load_params(), time.monotonic()
        _check_count(main, script)
        made_of = consumer(script.stem, sys.argv[1:])
        if script.stem != CODE.name:
            check(made_of, *params.tasks)
        if not RANK:
            announce(params)
        with _main_process_speaks():
            main(params, *sys.argv[1:])
        if script.stem != CODE.name:
            check(made_of, *params.tasks)
        note_cost(params, script.stem, sys.argv[1:], time.monotonic() - started)
    except UserError as error:
        _fail(f"{name}: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        _fail(f"{name}: interrupted")
    _leave()


def _end_with_dvc(name: str) -> None:
    """Watch the processes between this stage and the DVC that runs it (a shell, a launcher); end when a parent is gone."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil

    parents: dict[psutil.Process, int] = {}
    process = psutil.Process()
    with suppress(psutil.Error, OSError):
        while process.pid == os.getpid() or "DVC_STAGE" in process.environ():
            parents[process] = process.ppid()
            process = psutil.Process(parents[process])

    def watch() -> None:
        with suppress(psutil.Error):
            while all(process.ppid() == parent for process, parent in parents.items()):
                time.sleep(LOOK)
        print(f"{name}: ended, because the dvc that ran it has", file=sys.stderr, flush=True)
        interrupt_main()
        time.sleep(GRACE)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _check_count(main: Callable[..., None], script: Path) -> None:
    expected, found = len(signature(main).parameters) - 1, len(sys.argv) - 1
    if found != expected:
        raise UserError(
            f"expected {expected} arguments, found {found}; see the top of stages/{script.name}"
        )


@contextmanager
def _main_process_speaks() -> Iterator[None]:
    """Silence the output and progress bars of all processes but the main one; errors still show."""
    if not RANK:
        yield
        return
    os.environ["TQDM_DISABLE"] = "1"
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        yield


def _fail(line: str) -> NoReturn:
    # Most errors occur in all processes, and the launcher ends the others when one has failed. All but the main process
    # wait, so that the main one prints the line.
    if RANK:
        time.sleep(GRACE)
    sys.exit(line)


def _leave() -> None:
    """Leave the process group; only a stage that has imported torch can have joined it."""
    if "torch" in sys.modules:
        import torch.distributed

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def read_seed(text: str) -> int:
    """The SEED argument of a stage."""
    if not text.isdigit():
        raise UserError(f"seed {text!r}: expected a number of 0 or more")
    return int(text)


def quieten() -> None:
    """Ignore `LIBRARY_WARNINGS`; let transformers show only errors and the progress of downloads."""
    for message in LIBRARY_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if "transformers" not in sys.modules:  # data stages do without its import, which takes seconds
        return
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()


def _flush_denormals() -> None:
    """Treat numbers below 1e-38 as 0: a confident model's gradients are full of them, and they slow down a CPU.

    Threads inherit the setting, so it must precede those of torch.
    """
    if "torch" in sys.modules:
        import torch

        torch.set_flush_denormal(True)

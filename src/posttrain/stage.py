"""What every stage does around its work: read params, run, and turn a user's mistake into one line.

    def main(params: Params) -> None: ...

    if __name__ == "__main__":
        run(main)

Arguments of the command line follow `params` (`python stages/rl_selector.py ppo 0`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from posttrain.errors import UserError
from posttrain.params import load_params


def run(main: Callable[..., None]) -> None:
    """Call `main(params, *arguments)`; exit 1 with one line on a mistake or a failing disk."""
    name = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _quieten_transformers()
    try:
        main(load_params(), *sys.argv[1:])
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{name}: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted")


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

"""What a stage cost: a line of logs/times.jsonl, outside DVC's outputs, for `python -m posttrain.report.cost`."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from posttrain.core.params import Params

TIMES = Path("logs/times.jsonl")

# Tokens that models of this process have read, pads included, in forward passes of whatever purpose (`models.load`).
READ: Counter[str] = Counter(tokens=0)
RANK = int(os.environ.get("RANK", "0"))  # set by the launcher, 0 for the main process


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

"""The cost of each stage: a line in logs/times.jsonl, outside DVC's outputs, for `python -m posttrain.report.cost`."""

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

# Tokens, padding included, in all forward passes of this process; counted by a hook of `models.load`.
READ: Counter[str] = Counter(tokens=0)
RANK = int(os.environ.get("RANK", "0"))  # set by the launcher, 0 for the main process


def note_cost(params: Params, stage: str, arguments: Sequence[str], seconds: float) -> None:
    """Append a line to logs/times.jsonl: the stage, data set and model, with seconds, peak memory in MiB, and tokens.

    The memory is the peak resident size of the process, or its peak allocation on the GPU if it used one. Of several
    processes only the main one is measured.
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

"""The cost of each stage: a line in logs/times.jsonl, outside DVC's outputs, for `python -m posttrain.report.cost`.

The line of a training names the digest of the model that came of it, so that what a model cost is found after other runs,
too. Those of a queued experiment stand in the repository's own file, because its copy goes away.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from posttrain.core.files import hash_path
from posttrain.core.params import FINE_TUNED, Params

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
    line: dict[str, Any] = {
        "stage": stage,
        "arguments": list(arguments),
        "dataset": params.dataset,
        "model": params.model,
        "seconds": round(seconds, 2),
        "peak_mib": round(peak / 2**20),
        "tokens": READ["tokens"],
    }
    times, model = TIMES, model_of(stage, arguments)
    if model is not None and model.is_dir():
        line["made"], times = hash_path(model), repository() / TIMES
    times.parent.mkdir(exist_ok=True)
    with times.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def model_of(stage: str, arguments: Sequence[str]) -> Path | None:
    """The folder of the model that a training writes; None for any other stage."""
    family, _, kind = stage.partition("_")
    if kind == "sft":
        arguments = [FINE_TUNED, *arguments]
    return Path("models", family, *arguments) if kind in ("sft", "rl") else None


def repository() -> Path:
    """The working directory, or for a queued experiment the repository whose .dvc/tmp has its copy."""
    here = Path.cwd()
    copied = (place.parents[1] for place in here.parents if place.parts[-2:] == (".dvc", "tmp"))
    return next(copied, here)

"""Where a run of DVC stands, as the first line of each stage: `stage 14 of 36, 4 min 10 s so far, about 6 min left`.

    python -m posttrain.core.plan STAGE [TARGET ...]

prints as JSON the stages that `dvc repro TARGET ...` is about to run from STAGE on. The first stage of a run asks for them
(a second) and notes them in logs/plan.json. The time left is that of the last runs of these stages for the same data set
and model, in logs/times.jsonl; if one has not run yet, it is not said. A queued experiment, whose command does not name its
targets, says nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from posttrain.core.cost import TIMES
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl, write_json
from posttrain.core.params import Params

PLAN = Path("logs/plan.json")
# Stages that write something for each other stage; most of it is as before when they have run again.
DIGESTS = ("code", "inputs")


def announce(params: Params) -> None:
    """Print where the run of DVC stands that has started this stage."""
    name, run = os.environ.get("DVC_STAGE", ""), dvc_process()
    if run is None or name in DIGESTS or "exec-run" in run.arguments:  # queued: targets unknown
        return
    plan = _read(read_json, PLAN) or {}
    if plan.get("process") != run.process or plan["first"] < run.started:  # of an earlier run
        stages = _ask(name, run.arguments)
        plan = {"process": run.process, "first": time.time(), "stages": stages, "begun": []}
    if name not in plan["stages"]:
        return
    done, ahead = plan["begun"], plan["stages"][plan["stages"].index(name) :]
    PLAN.parent.mkdir(exist_ok=True)
    write_json(PLAN, {**plan, "begun": [*done, name]})
    now = time.time()
    last = last_seconds(_read(read_jsonl, TIMES) or [], params.dataset, params.model)
    left = seconds_left(done, ahead, last, now - plan["first"])
    rest = "" if left is None else f", about {duration(left)} left"
    where = f"stage {len(done) + 1} of {len(done) + len(ahead)}"
    print(f"{name}: {where}, {duration(now - run.started)} so far{rest}", flush=True)


def _read(read: Callable[[Path], Any], path: Path) -> Any:
    """A file's content; None if it is missing or broken, which must not end a stage."""
    try:
        return read(path)
    except UserError:
        return None


@dataclass(frozen=True, slots=True)
class Run:
    """A `dvc` command: its process id, its start in seconds since 1970, its arguments."""

    process: int
    started: float
    arguments: list[str]


def dvc_process() -> Run | None:
    """The `dvc` command that has started this process; None if none has."""
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    try:
        for process in psutil.Process().parents():
            command = process.cmdline()
            for place, word in enumerate(command[:3]):
                if Path(word).name == "dvc":
                    return Run(process.pid, process.create_time(), command[place + 1 :])
    except psutil.Error:  # a process has ended, or is another user's
        pass
    return None


def _ask(name: str, arguments: Sequence[str]) -> list[str]:
    """The stages ahead from `name` on. In a process of its own, so that no stage has DVC in its memory."""
    command = [sys.executable, "-m", "posttrain.core.plan", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def last_seconds(times: Iterable[Mapping[str, Any]], dataset: str, model: str) -> dict[str, float]:
    """Seconds of the last run of each stage, by DVC's name of it."""
    return {
        "@".join(filter(None, (line["stage"], "-".join(line["arguments"])))): line["seconds"]
        for line in times
        if (line.get("dataset"), line.get("model")) == (dataset, model)
    }


def seconds_left(
    done: Sequence[str], ahead: Sequence[str], last: Mapping[str, float], took: float
) -> float | None:
    """Seconds that the stages `ahead` will take; None if there is one of whose kind none has run.

    last: seconds of each stage's last run. took: seconds of the stages `done`, whose excess over `last` (imports, DVC)
    is expected of the next ones as well. A stage that has not run takes as long as others of its kind.
    """

    def expected(name: str) -> float | None:
        kind = name.split("@")[0]
        others = [seconds for other, seconds in last.items() if other.split("@")[0] == kind]
        return last[name] if name in last else mean(others) if others else None

    seconds = [expected(name) for name in ahead]
    excess = max(0.0, took - sum(last.get(name, 0) for name in done)) / max(1, len(done))
    known = [value for value in seconds if value is not None]
    return sum(known) + excess * len(ahead) if len(known) == len(seconds) else None


def duration(seconds: float) -> str:
    """In the two units that matter: 40 s, 4 min 10 s, 10 min, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def planned(name: str, arguments: Iterable[str]) -> list[str]:
    """DVC's names of the stages from the running stage `name` on that DVC will run, in its order."""
    from dvc.repo import Repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    with Repo() as repo, repo.lock:
        graph = get_active_graph(repo.index.graph)
        named = {stage.addressing for stage in graph}
        named |= {name.split("@")[0] for name in named}
        targets = [word for word in arguments if word in named] or ["dvc.yaml"]
        stages = plan_repro(graph, collect_stages(repo, targets))
        names = [stage.addressing for stage in stages]
        run: list[str] = []
        for stage in stages[names.index(name) :]:
            upstream = {other.addressing for other in graph.successors(stage)} - set(DIGESTS)
            # Of what the running stage writes, which is locked, the status is not asked.
            if stage.addressing == name or upstream & set(run) or stage.status():
                run.append(stage.addressing)
    return run


if __name__ == "__main__":
    print(json.dumps(planned(sys.argv[1], sys.argv[2:])))

"""Kill the pipeline at random moments, and check that plain `dvc repro` ends as if nothing had happened.

python tests/soak.py --kills 10 --seed 0

One copy of the project runs `dvc repro` to its end. In another, `dvc repro` and its child processes are killed (SIGKILL)
again and again, each time in a stage and at a moment sampled by the seed: before the first checkpoint, between two, while
one is written, while the output is written, or after that, until DVC has recorded it. Then all outputs, metrics and
dvc.lock must equal those of the first copy byte for byte (except for the order of stages in dvc.lock, which is random),
and no training run that had a checkpoint may have started over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal

from ruamel.yaml import YAML
from safetensors import SafetensorError, safe_open
from workspace import TINY, copy_project, start

from posttrain.core.code import RAW
from posttrain.core.params import FAMILIES, FINE_TUNED, UNTRAINED, method_names

Moment = Literal["start", "between", "checkpoint", "output", "after"]
TRAINING: tuple[Moment, ...] = ("start", "between", "checkpoint", "output", "after")
OTHER: tuple[Moment, ...] = ("start", "output", "after")
WORDS: dict[Moment, str] = {
    "start": "at its start",
    "between": "between checkpoints",
    "checkpoint": "while it wrote a checkpoint",
    "output": "while it wrote its output",
    "after": "after its output was in place",
}
RESULTS = ("data", "models", "metrics", "plots")
HIDDEN = (".gitignore", RAW)  # names that a kill did not leave
POLL = 0.002  # seconds
LONGEST = 1800.0  # seconds without a new stage
SMALL: dict[str, Any] = TINY | {
    "datasets.sample.train": 40,
    "datasets.sample.val": 12,
    "datasets.sample.test": 12,
    "generator.sample.questions": 12,
    "selector.common.steps": 4,
    "generator.common.steps": 4,
}


@dataclass
class Kill:
    """A stage and the moment of its kill, and later the findings."""

    stage: str
    moment: Moment
    wait: float  # share of the stage's time to wait once the moment has come
    checkpoints: int  # to be seen written before
    when: Moment | None = None
    saved: int | None = None  # the step of the checkpoint that was there
    resumed: bool | None = None

    @property
    def recovered(self) -> bool:
        return self.resumed is True or (self.resumed is None and self.when == "after")

    def line(self, number: int, count: int) -> str:
        was = f"its checkpoint of step {self.saved}" if self.saved else "no checkpoint"
        if self.resumed is None:
            ended = "DVC had recorded it" if self.recovered else "DID NOT RUN AGAIN"
        elif self.resumed:
            ended = "went on from there" if self.saved else "ran from the start"
        else:
            ended = "STARTED OVER"
        when = WORDS[self.when or self.moment]
        return f"{number} of {count}: {self.stage} killed {when}, with {was}: {ended}"


class Repro:
    """A running `dvc repro` and its current stage."""

    def __init__(self, project: Path, targets: Sequence[str]) -> None:
        self.process = start(project, "dvc", "repro", *targets, start_new_session=True)
        self.lines: SimpleQueue[str] = SimpleQueue()
        self.output: list[str] = []
        self.errors: list[str] = []
        self.threads = [
            Thread(target=self._read, args=(self.process.stdout, self.lines.put)),
            Thread(target=self._read, args=(self.process.stderr, self.errors.append)),
        ]
        for thread in self.threads:
            thread.start()

    @staticmethod
    def _read(stream: Any, put: Callable[[str], None]) -> None:
        for line in stream:
            put(line)

    def entered(self) -> str | None:
        """The stage that it has begun since the last call."""
        found = None
        while True:
            try:
                line = self.lines.get_nowait()
            except Empty:
                return found
            self.output.append(line)
            if line.startswith("Running stage '"):
                found = line.split("'")[1]

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        code = self.process.wait()
        for thread in self.threads:
            thread.join()
        return code


@dataclass
class Watch:
    """The files of a stage: its checkpoints and its output."""

    project: Path
    output: Path
    before: dict[Path, int] = field(default_factory=dict)
    written: int = 0
    lowest: int | None = None  # step of a checkpoint written since

    def __post_init__(self) -> None:
        self.before = self._whole()

    def look(self) -> Moment:
        """The current position of the stage."""
        for path, changed in self._whole().items():
            if self.before.get(path) != changed:
                self.before[path] = changed
                self.written += 1
                step = step_of(path)
                if step is not None:
                    self.lowest = step if self.lowest is None else min(step, self.lowest)
        if self.output.exists():
            return "after"
        if any(self.output.parent.glob(f".{self.output.name}.*")):
            return "output"
        if self._half():
            return "checkpoint"
        return "between" if self.before else "start"

    def saved(self) -> int | None:
        """Step of the latest complete checkpoint."""
        steps = [step for path in self._whole() if (step := step_of(path)) is not None]
        return max(steps, default=None)

    def _whole(self) -> dict[Path, int]:
        found = {}
        for path in (self.project / ".checkpoints").glob("**/[!.]*.safetensors"):
            if path.name == "best.safetensors" or not path.parent.name.startswith("checkpoint-"):
                try:
                    found[path] = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
        return found

    def _half(self) -> bool:
        root = self.project / ".checkpoints"
        return any(root.glob("**/.*.safetensors.*")) or any(
            not (path / "best.safetensors").exists() for path in root.glob("*/checkpoint-*")
        )


def step_of(checkpoint: Path) -> int | None:
    """The step of a checkpoint; None if it is gone."""
    if checkpoint.parent.name.startswith("checkpoint-"):
        return int(checkpoint.parent.name.split("-")[1])
    try:
        with safe_open(checkpoint, framework="np") as file:
            return int(json.loads(file.metadata()["state"])["done"])
    except (OSError, SafetensorError):
        return None


def draw(stages: Sequence[str], kills: int, seed: int) -> list[Kill]:
    """Distinct moments in stages that train, sample or evaluate, in order within each stage."""
    rng = random.Random(seed)
    pairs: list[tuple[str, Moment]] = []
    for stage in sorted(stages):
        kind = stage.split("@")[0].partition("_")[2]
        if kind in ("sft", "rl"):
            pairs += [(stage, moment) for moment in TRAINING]
        elif kind in ("sample", "evaluate"):
            pairs += [(stage, moment) for moment in OTHER]
    chosen = rng.sample(pairs, kills)
    chosen.sort(key=lambda pair: TRAINING.index(pair[1]))
    return [Kill(stage, moment, rng.random(), rng.randint(0, 2)) for stage, moment in chosen]


def reference(project: Path, targets: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage of an uninterrupted `dvc repro`."""
    times: dict[str, float] = {}
    run, last = Repro(project, targets), None
    began = time.monotonic()
    while run.process.poll() is None or last is not None:
        stage = run.entered()
        done = run.process.poll() is not None
        if stage or done:
            if last is not None:
                times[last] = time.monotonic() - began
            last, began = stage, time.monotonic()
        time.sleep(0.05)
    if run.wait():
        sys.exit("".join([*run.output, *run.errors]))
    return times


def run_until_killed(
    project: Path,
    targets: Sequence[str],
    plan: list[Kill],
    killed: list[Kill],
    outputs: dict[str, str],
    times: dict[str, float],
) -> bool:
    """Run `dvc repro` until the next planned kill, and move that to `killed`; False if it ends before."""
    run = Repro(project, targets)
    kill: Kill | None = None
    watch: Watch | None = None
    stage: str | None = None
    came: float | None = None

    def settle(ended: bool) -> None:
        """Check earlier kills by the stage's later checkpoints: none is of a step that was already done."""
        for earlier in killed:
            if earlier.stage == stage and earlier.resumed is None and watch is not None:
                low = watch.lowest
                if ended or low is not None or not earlier.saved:
                    earlier.resumed = low is None or not earlier.saved or low > earlier.saved

    began = time.monotonic()
    while run.process.poll() is None:
        if (entered := run.entered()) is not None:
            settle(ended=True)
            stage, began, came = entered, time.monotonic(), None
            watch = Watch(project, project / outputs[stage])
            kill = next((one for one in plan if one.stage == stage), None)
        now = time.monotonic()
        if now - began > LONGEST:
            run.kill()
            sys.exit(f"{stage}: nothing happens\n{''.join(run.errors)}")
        if watch is not None:
            where = watch.look()
            if kill is not None and came is None and _reached(kill, where, watch.written):
                came = now
            if kill is not None and came is not None:
                share = {"start": 0.4, "between": 0.2, "after": 0.1}.get(kill.moment, 0.0)
                if _passed(kill, where) or now - came >= kill.wait * share * times[stage or ""]:
                    run.kill()
                    where = watch.look()
                    settle(ended=False)
                    kill.when, kill.saved = where, watch.saved()
                    plan.remove(kill)
                    killed.append(kill)
                    return True
        time.sleep(POLL)
    settle(ended=True)
    if run.wait():
        print("".join([*run.output, *run.errors]), file=sys.stderr)
        sys.exit(f"dvc repro failed in {stage}")
    return False


def _reached(kill: Kill, where: Moment, written: int) -> bool:
    if _passed(kill, where):
        return True
    if kill.moment == "checkpoint" and written < kill.checkpoints:
        return False
    return where == kill.moment


def _passed(kill: Kill, where: Moment) -> bool:
    """Whether the moment has been missed; between two checkpoints a third may be written."""
    last: Moment = "checkpoint" if kill.moment == "between" else kill.moment
    return TRAINING.index(where) > TRAINING.index(last)


def contents(project: Path) -> dict[str, bytes]:
    """All files of the results, except temporary ones left by a kill."""
    files = (path for name in RESULTS for path in (project / name).rglob("*") if path.is_file())
    names = {path.relative_to(project): path for path in files}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in sorted(names.items())
        if not any(part.startswith(".") and part not in HIDDEN for part in name.parts)
    }


def lock(project: Path) -> Any:
    return YAML(typ="safe").load(project / "dvc.lock")["stages"]


def leftovers(project: Path) -> list[str]:
    """Files that will not be used again."""
    found = [*(project / ".checkpoints").glob("*")]
    for name in RESULTS:
        found += [path for path in (project / name).rglob(".*") if path.name not in HIDDEN]
    return sorted(path.relative_to(project).as_posix() for path in found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill the pipeline at random moments.")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", default=(), help="stages, with what they need")
    parser.add_argument("--all", action="store_true", help="every method, not two of each kind")
    arguments = parser.parse_args()
    changes = dict(SMALL)
    if arguments.all:
        for family in FAMILIES:
            methods = [name for name in method_names(family) if name != FINE_TUNED]
            changes[f"{family}.methods"] = methods
            changes[f"{family}.policies"] = [UNTRAINED, FINE_TUNED, *methods]
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        whole, project = Path(folder) / "whole", Path(folder) / "killed"
        for copy in (whole, project):
            copy_project(copy, changes)
        began = time.monotonic()
        times = reference(whole, arguments.targets)
        print(f"uninterrupted: {len(times)} stages in {time.monotonic() - began:.0f} s", flush=True)
        outputs = {name: entry["outs"][0]["path"] for name, entry in lock(whole).items()}
        plan, killed = draw([*times], arguments.kills, arguments.seed), list[Kill]()
        told = 0
        going = True
        while going:
            going = run_until_killed(project, arguments.targets, plan, killed, outputs, times)
            while told < len(killed) and (killed[told].resumed is not None or not going):
                told += 1
                print(killed[told - 1].line(told, arguments.kills), flush=True)
        expected, found = contents(whole), contents(project)
        wrong = [name for name in expected | found if expected.get(name) != found.get(name)]
        if lock(whole) != lock(project):
            wrong.append("dvc.lock")
        for name in wrong:
            print(f"{name} differs")
        for name in leftovers(project):
            print(f"{name} was left behind")
        good = 0 if wrong else sum(kill.recovered for kill in killed)
        print(f"{len(expected)} files compared")
        print(f"{good} of {arguments.kills} recovered")
        sys.exit(good != arguments.kills)


if __name__ == "__main__":
    main()

"""Tuning with a stated budget: each method with each value of its grid, on seeds of its own, chosen on validation.

    python -m posttrain.tune [selector | generator [METHOD]] [--write]

The grid is section `tuning` of params.yaml. Each of its values is a `dvc exp run --temp` of the trainings of a method, in a
copy of the project: the workspace and its params.yaml stay as they are. Its result is the mean over the seeds of the
validation of the weights that each training kept; no test question is read. metrics/tuning.json has all results and is
written after each, so that the same command goes on after a kill. The choices are printed, and with --write set in
params.yaml.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from posttrain.core.code import digest
from posttrain.core.cost import TIMES
from posttrain.core.errors import UserError
from posttrain.core.files import read_json, read_jsonl, write_json
from posttrain.core.methods import check_methods, grid, load_method, settings_of
from posttrain.core.not_trained import NOT_TRAINED
from posttrain.core.params import FAMILIES, FINE_TUNED, Params, load_params
from posttrain.core.plan import duration, last_seconds
from posttrain.report.effort import QUESTIONS
from posttrain.report.tuned import RECORD, Tried, Tuned, Values, best, others, read_tuned, shown

LOG = Path("logs/tune.log")
ALL = 1_000_000  # validation questions; a training takes those that there are
DIVERGED = "the training has diverged"
VALIDATED = "val_"  # before the measure, in what a model's folder says of its training


@dataclass(frozen=True)
class Method:
    """A method to tune: its name, its grid, and what its trainings depend on."""

    family: str
    name: str
    grid: list[Values]
    seeds: list[int]
    questions: int
    settings: Values
    overrides: list[str]
    made_of: str

    @property
    def budget(self) -> int:
        return len(self.grid) * len(self.seeds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tune", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("family", nargs="?", choices=FAMILIES)
    parser.add_argument("method", nargs="?")
    parser.add_argument("--write", action="store_true", help="set what is chosen in params.yaml")
    options = parser.parse_args(arguments)
    if not Path("dvc.yaml").is_file():
        raise UserError("dvc.yaml: missing; run this in the folder of the project")
    params = load_params()
    check_methods(params)
    if params.tuning is None:
        raise UserError("params.yaml: tuning: missing")
    methods = [
        prepare(params, family, name)
        for family in ([options.family] if options.family else FAMILIES)
        for name in _names(params, family, options.method)
    ]
    methods = [method for method in methods if method.grid]
    record = read_record()
    waiting = [
        (method, values)
        for method in methods
        for values in method.grid
        if values not in [row.values for row in recorded(record, method)]
    ]
    print(budget(params, methods, waiting), flush=True)
    started = time.monotonic()
    for done, (method, values) in enumerate(waiting, start=1):
        tried, about = run(method, values)
        note(params, method, tried, about)
        left = (time.monotonic() - started) / done * (len(waiting) - done)
        result = tried.failed or f"{about.measure} {', '.join(f'{x:.4f}' for x in tried.by_seed)}"
        rest = f", about {duration(left)} left" if left else ""
        print(
            f"{method.family} {method.name} {shown(values)}: {result}  ({done} of {len(waiting)}{rest})",
            flush=True,
        )
    settings = choices(read_record(), methods)
    if options.write:
        from dvc.utils.hydra import apply_overrides

        apply_overrides(Path("params.yaml"), settings)
    print("\n".join([f"{'Set' if options.write else 'To set'} in params.yaml:", *settings]))


def _names(params: Params, family: str, name: str | None) -> list[str]:
    trained = params.family(family).methods
    if name is not None and name not in trained:
        raise UserError(f"method {name!r}: expected one of {family}.methods, {', '.join(trained)}")
    return [name] if name else trained


def prepare(params: Params, family: str, name: str) -> Method:
    """A method with its grid, and the digest of all that its trainings depend on, besides the values of the grid."""
    assert params.tuning is not None
    combinations = grid(params, family, name)
    settings = settings_of(params, family, name, load_method(family, name)).model_dump()
    settings = others(settings, combinations[0] if combinations else {})
    questions = params.tuning.questions or ALL
    sections = [f"{family}.common", f"{family}.{FINE_TUNED}", "examples", "pools", "reward"]
    sections += ["sampling", *(f"generator.{part}" for part in ("sample", "pairs"))]
    parts = [
        params.selected_dataset.model_dump(exclude={"test", "settings"}),
        params.selected_model.model_dump(exclude={"settings"}),
        params.sections(*sections),
        [params.tuning.seeds, questions, settings],
        [digest(stage, *params.tasks) for stage in (f"{family}_sft", f"{family}_rl/{name}")],
        *(params.datasets[part].model_dump(exclude={"settings"}) for part in params.parts),
    ]
    sha = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    # Without the section `tuning`, whose seeds must not be those of a run.
    overrides = ["~tuning", f"seeds={json.dumps(params.tuning.seeds)}"]
    overrides.append(_override(params, family, name, "evaluation_questions", questions))
    seeds = params.tuning.seeds
    return Method(family, name, combinations, seeds, questions, settings, overrides, sha)


def _override(params: Params, family: str, name: str, key: str, value: Any) -> str:
    """DVC's override of a method's setting, which its section may have or not; where an entry sets it, of the entry's."""
    section = f"{family}.{name}"
    own = params.plain().family(family).sections[name]
    by = params.settings.get(f"{section}.{key}") or params.settings.get(f"{family}.common.{key}")
    if by is not None:
        kind, entry = by[0].split(".", 1)
        own = getattr(getattr(params, kind)[entry].settings, family).get(name, {})
        section = f"{by[0]}.settings.{section}"
    return f"{'' if key in own else '+'}{section}.{key}={json.dumps(value)}"


def budget(
    params: Params, methods: Sequence[Method], waiting: Sequence[tuple[Method, Values]]
) -> str:
    """What the tuning costs, in trainings and, if all its methods have run here, in time."""
    lines = []
    for family in dict.fromkeys(method.family for method in methods):
        own = [method for method in methods if method.family == family]
        for count in sorted({len(method.grid) for method in own}):
            names = [method.name for method in own if len(method.grid) == count]
            seeds = len(own[0].seeds)
            total = len(names) * count * seeds
            lines.append(
                f"{family}: {len(names)} methods ({', '.join(names)}) x {count} values x {seeds} seeds = {total} trainings"
            )
    total = sum(method.budget for method in methods)
    left = sum(len(method.seeds) for method, _ in waiting)
    times = read_jsonl(TIMES) if TIMES.is_file() else []
    seconds = last_seconds(times, params.dataset, params.model)
    expected = []
    for method, _ in waiting:
        stage = f"{method.family}_rl@{method.name}-"
        known = [value for name, value in seconds.items() if name.startswith(stage)]
        expected += [mean(known) * len(method.seeds)] if known else []
    about = f", about {duration(sum(expected))} by their last runs here"
    known_all = waiting and len(expected) == len(waiting)
    lines.append(f"{total - left} recorded, {left} to run{about if known_all else ''}")
    return "\n".join(lines)


@dataclass(frozen=True)
class About:
    """The validation of an experiment: the number and the hash of its questions, and the measure."""

    questions: int = 0
    questions_sha256: str = ""
    measure: str = ""


def run(method: Method, values: Values) -> tuple[Tried, About]:
    """The trainings of a method with these values, one for each seed; `UserError` if one fails, unless it diverges."""
    name = f"tune-{method.family}-{method.name}-{re.sub(r'[^A-Za-z0-9_.]+', '-', shown(values))}"
    changes = [
        _override(load_params(), method.family, method.name, *each) for each in values.items()
    ]
    sets = [word for each in (*method.overrides, *changes) for word in ("-S", each)]
    targets = [f"{method.family}_rl@{method.name}-{seed}" for seed in method.seeds]
    remove(name)  # of a run that was killed
    failure = call(["dvc", "exp", "run", "--temp", "--name", name, *sets, *targets])
    if failure is not None:
        if DIVERGED not in failure:
            raise UserError(f"{shown(values)}: {failure} (all of it: {LOG})")
        return Tried(values=values, by_seed=[], failed=failure), About()
    try:
        return read_results(method, values, name)
    finally:
        remove(name)


def call(command: Sequence[str]) -> str | None:
    """Run a command of DVC with its output in `LOG`; None if it succeeds, else the line that says why not.

    Interrupted, it interrupts the command and waits for its end.
    """
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w", encoding="utf-8") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            status = child.wait()
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGINT)
            child.wait()
            raise
    if not status:
        return None
    lines = re.split(r"[\r\n]+", LOG.read_text(encoding="utf-8"))
    told = [line for line in lines if re.match(r"(ERROR|[a-z_]+(@\S+)?): ", line)]
    diverged = [line for line in told if DIVERGED in line]
    errors = [line for line in told if line.startswith("ERROR")]
    at = told.index(errors[0]) if errors else 0
    # The stage says why before DVC says that it failed.
    return (diverged or told[max(0, at - 1) :] or [f"{command[0]} ended with status {status}"])[0]


def read_results(method: Method, values: Values, revision: str) -> tuple[Tried, About]:
    """The results of an experiment, from the models and the validation questions that it left in DVC's cache."""
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=revision)
    found: list[dict[str, Any]] = []
    for seed in method.seeds:
        folder = f"models/{method.family}/{method.name}/{seed}"
        if files.exists(f"{folder}/{NOT_TRAINED}"):
            reason = json.loads(files.read_text(f"{folder}/{NOT_TRAINED}"))["reason"]
            return Tried(values=values, by_seed=[], failed=f"not trained: {reason}"), About()
        meta = json.loads(files.read_text(f"{folder}/{method.family}.json"))["meta"]
        found.append({key: value for key, value in meta.items() if key.startswith(VALIDATED)})
    (key,) = found[0]
    questions = files.read_bytes(QUESTIONS[method.family].as_posix())
    count = sum(bool(line.strip()) for line in questions.splitlines())
    about = About(
        min(method.questions, count),
        hashlib.sha256(questions).hexdigest(),
        key.removeprefix(VALIDATED),
    )
    return Tried(values=values, by_seed=[float(each[key]) for each in found]), about


def remove(experiment: str) -> None:
    """Remove an experiment, if there is one of this name; its models stay in DVC's cache."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    with suppress(DvcException), Repo() as repo:
        repo.experiments.remove([experiment])


def read_record() -> dict[str, Any]:
    """The parsed metrics/tuning.json; empty if there is none."""
    record = read_json(RECORD) if RECORD.is_file() else {}
    if not isinstance(record, dict):
        raise UserError(f"{RECORD}: expected families, found {type(record).__name__}")
    return record


def recorded(record: Any, method: Method) -> list[Tried]:
    """The results of this grid that the record has already, from trainings that would be the same today."""
    tuned = read_tuned(record, method.family, method.name)
    if tuned is None or tuned.made_of != method.made_of:
        return []
    return [row for row in tuned.tried if row.values in method.grid]


def note(params: Params, method: Method, tried: Tried, about: About) -> None:
    """Add a result to metrics/tuning.json, and the choice if it was the last of its method."""
    record = read_record()
    rows = [*recorded(record, method), tried]
    before = read_tuned(record, method.family, method.name) if len(rows) > 1 else None
    if before is not None and any(not row.failed for row in before.tried):
        then = About(before.questions, before.questions_sha256, before.measure)
        if about not in (About(), then):
            raise UserError(
                f"{RECORD}: {method.family}.{method.name}: its other results are of other validation questions; remove them"
            )
        about = then
    tuned = Tuned(
        split="val",
        dataset=params.dataset,
        model=params.model,
        questions=about.questions,
        questions_sha256=about.questions_sha256,
        measure=about.measure,
        seeds=method.seeds,
        settings=method.settings,
        made_of=method.made_of,
        budget=method.budget,
        tried=sorted(rows, key=lambda row: method.grid.index(row.values)),
        chosen=best(rows) if len(rows) == len(method.grid) else None,
    )
    family = {**record.get(method.family, {}), method.name: tuned.model_dump()}
    write_json(RECORD, {**record, method.family: family})


def choices(record: Any, methods: Sequence[Method]) -> list[str]:
    """DVC's overrides that set what was chosen; says so of a choice at the end of its list, and where all have failed."""
    params, found = load_params(), []
    for method in methods:
        tuned = read_tuned(record, method.family, method.name)
        name = f"{method.family}.{method.name}"
        if tuned is None or tuned.chosen is None:
            print(f"{name}: no value could be trained with")
            continue
        for key, value in tuned.chosen.items():
            values = sorted({row[key] for row in method.grid})
            if len(values) > 1 and value in (values[0], values[-1]):
                side = "smallest" if value == values[0] else "largest"
                print(f"{name}.{key}: the {side} value is the best; one beyond it may be better")
            found.append(_override(params, method.family, method.name, key, value))
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except UserError as error:
        sys.exit(f"tune: {error}")
    except KeyboardInterrupt:
        sys.exit("tune: interrupted; the same command goes on")

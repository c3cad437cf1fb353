"""The accuracy of every policy in the workspace, in its commit and in each DVC experiment, as one table.

    python -m posttrain.report.experiments [selector | generator] [MEASURE]

The numbers come from plots/compare/FAMILY.csv, without the hundreds of columns of `dvc exp show`. MEASURE is one of that
file, by default accuracy (others: sample_accuracy, reward, expected_reward, and the change of each against SFT and SFT+, as
accuracy_vs_sft and accuracy_vs_sft_plus). Experiments without a comparison are left out. One that ended before its
comparison has an empty column: its table is still that of the commit it began from.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML

from posttrain.core.errors import UserError
from posttrain.core.params import FAMILIES
from posttrain.core.schema import nearest
from posttrain.report.findings import label
from posttrain.report.tables import table

Values = Mapping[str, float]  # by policy


def main(arguments: Sequence[str]) -> None:
    family, measure = [*arguments, *("selector", "accuracy")[len(arguments) :]][:2]
    if family not in FAMILIES:
        hint = nearest(family, FAMILIES)
        raise UserError(f"{family!r}: expected {' or '.join(FAMILIES)}{hint}")
    path, lock = Path(f"plots/compare/{family}.csv"), Path("dvc.lock")
    found: dict[str, tuple[str | None, str | None]] = {"workspace": (_text(path), _text(lock))}
    for name, revision in revisions().items():
        text, locked = (git("show", f"{revision}:{file.as_posix()}") for file in (path, lock))
        found[name] = text, locked
    columns: dict[str, Values] = {}
    notes = []
    known: set[str] = set()
    for name, (text, locked) in found.items():
        if text is None:
            continue
        late = out_of_step(locked, f"compare@{family}") if locked else None
        columns[name] = {} if late else parse(name, text, measure)
        known |= {row.get("metric") or "" for row in csv.DictReader(io.StringIO(text))}
        if late:
            notes.append(f"{name}: not compared, as {late} has not run on what was made before it")
    if not columns:
        raise UserError(f"{path}: neither here nor in an experiment; run dvc repro")
    if measure not in known:
        raise UserError(f"no comparison has a measure {measure!r}{nearest(measure, known)}")
    print("\n".join([by_policy(columns, measure), *notes]))


def out_of_step(lock: str, stage: str) -> str | None:
    """The name of a stage, up to `stage`, whose inputs in a dvc.lock are not the outputs of the stages before it.

    None if there is none: then `stage` has run last, or nothing that it stands on has changed since.
    """
    stages = YAML(typ="safe").load(lock)["stages"]
    made = {out["path"]: (name, out) for name, one in stages.items() for out in one.get("outs", ())}
    waiting, seen = [stage], {stage}
    while waiting:
        name = waiting.pop()
        for dep in stages.get(name, {}).get("deps", ()):
            path = dep["path"]
            if path in made and made[path][1].get("md5") != dep.get("md5"):
                return name
            before = {
                source
                for out, (source, _) in made.items()
                if f"{path}/".startswith(f"{out}/") or out.startswith(f"{path}/")
            }
            waiting += sorted(before - seen)
            seen |= before
    return None


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def parse(name: str, text: str, measure: str) -> Values:
    """The means over seeds of a measure in the long table of stage compare; `UserError` if the text is no such table."""
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        means = [row for row in rows if (row["seed"], row["metric"]) == ("mean", measure)]
        return {row["policy"]: float(row["value"]) for row in means}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name}: not a comparison's table: {error}") from error


def revisions() -> dict[str, str]:
    """By name, the revisions of HEAD and then of each experiment, the newest first."""
    listed = git("for-each-ref", "refs/exps", "--sort=-creatordate", "--format=%(refname)")
    names = [name for name in (listed or "").splitlines() if not _internal(name)]
    return {"HEAD": "HEAD", **{name.rpartition("/")[2]: name for name in names}}


def by_policy(columns: Mapping[str, Values], measure: str) -> str:
    """Markdown, a row per policy and a column per experiment, in percent."""
    policies = dict.fromkeys(policy for values in columns.values() for policy in values)
    rows = [
        [label(policy), *(_cell(values.get(policy)) for values in columns.values())]
        for policy in policies
    ]
    return table([f"{measure} %", *columns], rows)


def git(*arguments: str) -> str | None:
    """The output of a git command; None if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _internal(name: str) -> bool:
    """Whether DVC keeps the reference for itself: a running or queued experiment, or one that failed."""
    return name.split("/")[2] in ("exec", "stash", "celery")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"experiments: {error}")

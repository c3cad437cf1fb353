"""The settings of params.yaml that differ from the last commit: those that `dvc exp run -S` has left there, among others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from posttrain.core.schema import read_yaml

ABSENT = "(none)"


def settings_that_differ(path: str | Path = "params.yaml") -> list[str]:
    """Lines `KEY: COMMITTED → NOW`; none without git, a commit, or a readable file there."""
    path = Path(path)
    command = ["git", "-C", str(path.parent), "show", f"HEAD:./{path.name}"]
    try:
        shown = subprocess.run(command, capture_output=True, check=True)
        committed = dict(_leaves(YAML(typ="safe", pure=True).load(shown.stdout)))
    except (FileNotFoundError, subprocess.CalledProcessError, YAMLError):
        return []
    now = dict(_leaves(read_yaml(path)))
    keys = dict.fromkeys((*committed, *now))
    return [
        f"{key}: {committed.get(key, ABSENT)} → {now.get(key, ABSENT)}"
        for key in keys
        if committed.get(key, ABSENT) != now.get(key, ABSENT)
    ]


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value as text) of every setting; a list is one value."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, "null" if values is None else str(values).replace("'", "")

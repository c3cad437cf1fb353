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
        committed = YAML(typ="safe", pure=True).load(shown.stdout)
    except (FileNotFoundError, subprocess.CalledProcessError, YAMLError):
        return []
    if not isinstance(committed, dict):
        return []
    return list(_differences(committed, read_yaml(path)))


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    """A line for each setting, and for each section that only one of both has; a list is one value."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*before, *now)):
            place = f"{key}.{name}" if key else str(name)
            yield from _differences(before.get(name, ABSENT), now.get(name, ABSENT), place)
    elif before != now:
        yield f"{key}: {_text(before)} → {_text(now)}"


def _text(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "{...}"
    return "null" if value is None else str(value).replace("'", "")

"""The levels of minigrid, which is needed for this environment alone."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.schema import nearest

NO_EXPERT = ("KeyInBox", "PutNextS5N2Carrying", "PutNextS6N3Carrying", "PutNextS7N4Carrying")

_PREFIX = "BabyAI-"


def levels() -> dict[str, str]:
    """The registered id of each level, by its name without prefix and version."""
    gymnasium = _gymnasium()
    found = sorted(name for name in gymnasium.registry if name.startswith(_PREFIX))
    return {name.removeprefix(_PREFIX).rpartition("-v")[0]: name for name in found}


def check_levels(names: list[str], key: str) -> None:
    """`UserError` for a level that is not there, or that no expert solves."""
    known = levels()
    for name in names:
        if name not in known:
            raise UserError(f"{key}: {name!r} is not a level of minigrid{nearest(name, known)}")
        if name in NO_EXPERT:
            raise UserError(f"{key}: {name}: minigrid's bot cannot solve it, so it has no expert")


def make(level: str) -> Any:
    """A `minigrid.minigrid_env.MiniGridEnv` of that level."""
    return _gymnasium().make(levels()[level], disable_env_checker=True).unwrapped


def begin(engine: Any, seed: int) -> Any:
    """The first view of the game of that seed. What minigrid prints about layouts that it rejects is dropped."""
    with redirect_stdout(StringIO()):
        observation, _ = engine.reset(seed=seed)
    return observation["image"]


def _gymnasium() -> Any:
    os.environ.setdefault(
        "SDL_VIDEODRIVER", "dummy"
    )  # pygame, which minigrid imports, looks for a screen
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import gymnasium
        import minigrid  # noqa: F401  (registers its levels)
    except ImportError as error:
        raise UserError(
            f"the environment babyai needs the package {error.name}; pip install -r requirements-environments.txt"
        ) from error
    return gymnasium

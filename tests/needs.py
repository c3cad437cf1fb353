"""What some tests need: without it they are skipped, unless REQUIRE_SANDBOX, REQUIRE_ENVIRONMENTS or
REQUIRE_JAVA is set, as in CI."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from posttrain.core.errors import UserError
from posttrain.environments.babyai.engine import levels
from posttrain.environments.sciworld.engine import machine
from posttrain.environments.webshop.nouns import TEXTBLOB, get_nouns
from posttrain.environments.webshop.reward import token_set_ratio
from posttrain.environments.webshop.shop import get_shop
from posttrain.tasks.sandbox import run


def need_sandbox() -> None:
    """Skip the test where there is no bwrap, or where it may not make namespaces."""
    try:
        run("", "")
    except UserError as error:
        if os.environ.get("REQUIRE_SANDBOX"):
            raise
        pytest.skip(str(error))


def need_minigrid() -> None:
    """Skip the test where minigrid of requirements-environments.txt is not installed."""
    _need(levels)


def need_webshop() -> None:
    """Skip the test where a package of requirements-environments.txt for webshop is not installed."""
    _need(lambda: get_shop(None, 60, 0))
    _need(lambda: get_nouns(TEXTBLOB))
    _need(lambda: token_set_ratio("", ""))


def _need(use: Callable[[], object]) -> None:
    try:
        use()
    except UserError as error:
        if os.environ.get("REQUIRE_ENVIRONMENTS"):
            raise
        pytest.skip(str(error))


def need_scienceworld() -> None:
    """Skip the test where there is no Java, or the packages of requirements-environments.txt are not installed."""
    try:
        machine()
    except UserError as error:
        if os.environ.get("REQUIRE_JAVA"):
            raise
        pytest.skip(str(error))

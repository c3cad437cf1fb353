"""What some tests need: without it they are skipped, unless a variable says that they must not be.

CI sets REQUIRE_ENVIRONMENTS, and REQUIRE_SANDBOX and REQUIRE_JAVA where it has them; REQUIRE_ALFWORLD is for one's own use.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from posttrain.core.errors import UserError
from posttrain.environments.alfworld.engine import check_installed
from posttrain.environments.babyai.engine import levels
from posttrain.environments.sciworld.engine import machine
from posttrain.environments.webshop.nouns import TEXTBLOB, get_nouns
from posttrain.environments.webshop.reward import token_set_ratio
from posttrain.environments.webshop.shop import get_shop
from posttrain.tasks.sandbox import run


def need_sandbox() -> None:
    """Skip the test where there is no bwrap, or where it may not make namespaces."""
    _need(lambda: run("", ""), "REQUIRE_SANDBOX")


def need_minigrid() -> None:
    """Skip the test where minigrid of requirements-environments.txt is not installed."""
    _need(levels)


def need_webshop() -> None:
    """Skip the test where a package of requirements-environments.txt for webshop is not installed."""
    _need(lambda: get_shop(None, 60, 0))
    _need(lambda: get_nouns(TEXTBLOB))
    _need(lambda: token_set_ratio("", ""))


def need_scienceworld() -> None:
    """Skip the test where there is no Java, or the packages of requirements-environments.txt are not installed."""
    _need(machine, "REQUIRE_JAVA")


def need_alfworld() -> None:
    """Skip the test where the packages of requirements-alfworld.txt are not installed."""
    _need(check_installed, "REQUIRE_ALFWORLD")


def _need(use: Callable[[], object], required: str = "REQUIRE_ENVIRONMENTS") -> None:
    try:
        use()
    except UserError as error:
        if os.environ.get(required):
            raise
        pytest.skip(str(error))

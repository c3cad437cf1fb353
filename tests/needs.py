"""The sandbox for tests: skip where it does not work, unless REQUIRE_SANDBOX is set, as in CI."""

from __future__ import annotations

import os

import pytest

from posttrain.core.errors import UserError
from posttrain.tasks.sandbox import run


def need_sandbox() -> None:
    """Skip the test where there is no bwrap, or where it may not make namespaces."""
    try:
        run("", "")
    except UserError as error:
        if os.environ.get("REQUIRE_SANDBOX"):
            raise
        pytest.skip(str(error))

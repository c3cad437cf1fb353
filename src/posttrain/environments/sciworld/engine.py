"""The Java virtual machine in which the package scienceworld plays, and its games.

One machine of a process holds all its games. The package keeps three things for all of them: a source of random numbers, a
counter of objects, and sets whose order follows Java's identity hashes, which depend on all that the machine did before.
So a game sets the first two before each call, and the machine gives every object the same hash, so that sets are in
the order in which they were filled. Then a game depends on its own actions alone: on no other game, on no list of legal
actions that was asked for, and on no machine.

A machine ends with its process, also if that is killed, as it reads from a pipe whose other end closes then.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from posttrain.core.errors import UserError
from posttrain.core.schema import nearest
from posttrain.environments.sciworld.options import DROPPED

SECONDS = 120.0  # that one call may take; the longest gold path takes 20 on a busy machine
_FLAGS = (
    "-XX:+UseSerialGC",
    "-Xmx1g",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)
_OBJECTS = 1_000_000  # numbers of objects that are made in play; the games' own are below


def task_names() -> list[str]:
    """The package's tasks without those that AgentGym leaves out, in its order."""
    return [name for name in _constants().ID2TASK.values() if name not in DROPPED]


def check_tasks(names: list[str], key: str) -> None:
    """`UserError` for a task that is not there."""
    known = task_names()
    for name in names:
        if name not in known:
            raise UserError(f"{key}: {name!r} is not one of the tasks{nearest(name, known)}")


class Machine:
    """A Java virtual machine with the simulator."""

    def __init__(self) -> None:
        constants = _constants()
        from py4j.java_gateway import (
            GatewayClient,
            GatewayParameters,
            JavaGateway,
            launch_gateway,
        )

        class Client(GatewayClient):  # type: ignore[misc]
            """Raises what goes wrong with a connection, which the original logs and tries again."""

            def send_command(self, command: str, retry: bool = True, binary: bool = False) -> Any:
                connection = self._get_connection()
                response = connection.send_command(command)
                self._give_back_connection(connection)
                return response

        class Gateway(JavaGateway):  # type: ignore[misc]
            def _create_gateway_client(self) -> Any:
                return Client(gateway_parameters=self.gateway_parameters)

        if shutil.which("java") is None:
            raise UserError(
                "the environment sciworld needs Java 8 or newer; Debian, Ubuntu: apt install default-jre-headless"
            )
        port, token, self._process = launch_gateway(
            classpath=constants.JAR_PATH,
            javaopts=[*_FLAGS],
            die_on_exit=True,
            enable_auth=True,
            return_proc=True,
        )
        parameters = GatewayParameters(
            port=port,
            auth_token=token,
            read_timeout=SECONDS,
            enable_memory_management=False,  # it calls Java whenever Python collects garbage
        )
        self._gateway = Gateway(gateway_parameters=parameters)
        with self.watched():
            java = self._gateway.jvm
            # The simulator prints all that it does.
            java.java.lang.System.setOut(java.java.io.PrintStream(os.devnull))
            self._random = getattr(getattr(java.scala.util, "Random$"), "MODULE$")
            self._set_counter = getattr(java.util.UniqueIdentifier, "count_$eq")
            self._join = java.java.lang.String.join
            self._new_game = java.scienceworld.runtime.pythonapi.PythonInterface

    @property
    def alive(self) -> bool:
        """Whether the machine runs."""
        return self._process.poll() is None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """For calls: the machine is killed if one fails, takes too long or is interrupted, as its state is unknown then."""
        from py4j.protocol import Py4JNetworkError

        try:
            yield
        except BaseException as error:
            self.kill()
            cause = error.cause if isinstance(error, Py4JNetworkError) else None
            if isinstance(cause, TimeoutError):
                raise cause from None
            raise

    def kill(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._gateway.close()

    def new_game(self) -> Any:
        """A `PythonInterface` of the package, to be given back by `release`."""
        with self.watched():
            return self._new_game()

    def release(self, java_object: Any) -> None:
        """Let Java forget an object."""
        if self.alive:
            with self.watched():
                self._gateway.detach(java_object)

    def set_chance(self, seed: int, move: int) -> None:
        """Set what all games share, as it is before a move of a game."""
        self._random.setSeed(1_000_003 * seed + move)
        self._set_counter(_OBJECTS + 1_000 * move)

    def read(self, java_list: Any) -> list[str]:
        """The strings of a list of Java's, in one call; it is released."""
        text = self._join("\n", java_list)
        self.release(java_list)
        return text.split("\n") if text else []


_machine: Machine | None = None


def machine() -> Machine:
    """The machine of this process; another one if that has ended. `UserError` if Java or the package is missing."""
    global _machine
    if _machine is None or not _machine.alive:
        _machine = Machine()
    return _machine


@cache
def _constants() -> Any:
    try:
        import py4j.java_gateway  # noqa: F401
        import scienceworld.constants
    except ImportError as error:
        raise UserError(
            f"the environment sciworld needs the package {(error.name or '').partition('.')[0]}; "
            "pip install -r requirements-environments.txt"
        ) from error
    return scienceworld.constants

"""Programs that a model wrote, run where they can do no harm: by bubblewrap, in namespaces of their own.

    run("print(input()[::-1])", "abc")                      Result("ok", "cba\\n", "")
    run_all([("print(input()[::-1])", ["abc", "xy"])])      the same for many programs and inputs, on all cores

A program gets its input on stdin, and what it prints is compared by the caller, so no expected value is ever inside. It
sees a read-only /usr and an empty /tmp, no network, no process outside, no variable of the environment, and no file of
the project. It is no root there, has no capability, and cannot get one. That holds where this process is root, too:
bwrap is then started as an unprivileged user, because the kernel does not limit the number of root's processes.

Each input has a new process with `Limits`; the inputs of one program share a sandbox, and run one after the other.
Python there has the standard library only (-S), and hashes that do not vary. The interpreter is the one that runs this,
or /usr/bin/python3 where an unprivileged user may not read that (in /root, say).

    python benchmarks/sandbox.py                            programs per second

Left out: a limit on the memory of all processes together (it is at most `processes` times `memory_mib`), a filter of
system calls, and faults of the kernel.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Literal

from posttrain.core.errors import UserError
from posttrain.tasks import sandboxed

Status = Literal["ok", "error", "timeout", "memory", "output_limit", "not_text"]
Job = tuple[str, Sequence[str]]

NOBODY = "65534"
PROGRAM = "/program.py"
MIB = 1 << 20

_CHUNK = 1 << 16
_REPORT = 1 << 14
_REPORTED = re.compile(r"(\d{1,4}) (?:(-?\d{1,3})|([^-\d].*))")
_PACKAGES = {"bwrap": "bubblewrap", "prlimit": "util-linux", "setpriv": "util-linux"}
_SYSTEM_PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    cpu_seconds: of each process; this decides on slow programs, as it does not depend on what else the machine does.
    wall_seconds: of all inputs together, after which all processes are killed. memory_mib: address space of each process.
    processes: at the same time. output_bytes: of stdout for an input. file_mib: of each file; /tmp holds four times as
    much. files: open ones of each process.
    """

    cpu_seconds: int = 2
    wall_seconds: float = 20.0
    memory_mib: int = 256
    processes: int = 16
    output_bytes: int = MIB
    file_mib: int = 16
    files: int = 64


@dataclass(frozen=True, slots=True)
class Result:
    """What a program printed for an input, and how it ended.

    status: ok (exit status 0) | error (any other) | timeout | memory | output_limit (stdout is cut there) | not_text
    (exit status 0, but stdout is not UTF-8). A limit on time or output that one input reaches counts for the inputs
    after it as well, which are not tried. error: the exception, if one was raised: "ValueError: ...".
    """

    status: Status
    stdout: str
    error: str


DEFAULT = Limits()


def run(program: str, stdin: str, limits: Limits = DEFAULT) -> Result:
    """Run a Python program on an input. `UserError` if there is no working bwrap, never for the program."""
    return _run(_interpreter(), (program, [stdin]), limits)[0]


def run_all(
    jobs: Iterable[Job], limits: Limits = DEFAULT, workers: int | None = None
) -> list[list[Result]]:
    """The results of each (program, inputs), one for each input; at most `workers` run at a time (None: one per core)."""
    interpreter = _interpreter()
    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda job: _run(interpreter, job, limits), jobs))


@dataclass(frozen=True, slots=True)
class _Python:
    """An interpreter, and the folder outside /usr that it needs, if any."""

    path: Path
    prefix: Path | None = None


@cache
def _interpreter() -> _Python:
    """An interpreter that works inside; `UserError` if none does."""
    for name in _PACKAGES:
        _tool(name)
    prefix = Path(sys.base_prefix).resolve()
    running = _Python(
        Path(sys.executable).resolve(), None if prefix.is_relative_to("/usr") else prefix
    )
    failures = []
    for python in dict.fromkeys((running, _Python(_SYSTEM_PYTHON))):
        try:
            (found,) = _run(python, ("print(input())", ["works"]), DEFAULT)
        except UserError as error:
            failures.append(str(error))
            continue
        if found.stdout == "works\n":
            return python
        failures.append(f"{python.path}: {found.error or found.status}")
    raise UserError(
        f"bwrap cannot run Python here ({'; '.join(failures)}); it must be 0.8 or newer, and allowed to make user "
        "namespaces (in a container: --security-opt seccomp=unconfined)"
    )


def _tool(name: str) -> str:
    """The path of a program that the sandbox needs; `UserError` says how to get it."""
    found = shutil.which(name)
    if found is None:
        raise UserError(
            f"{name} is not installed, without which no program that a model wrote is run; Debian and Ubuntu: apt "
            f"install {_PACKAGES[name]}"
        )
    return found


@cache
def _outside(python: _Python, limits: Limits) -> tuple[str, ...]:
    """The command of bwrap, up to the options that name descriptors."""
    command: list[str | Path] = []
    if os.geteuid() == 0:
        command += [_tool("setpriv"), "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    command += [_tool("bwrap"), "--unshare-all", "--unshare-user", "--disable-userns"]
    command += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    command += ["--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"]
    command += ["--ro-bind", "/usr", "/usr"]
    for folder in (Path("/lib"), Path("/lib64")):
        if folder.is_symlink():
            command += ["--symlink", folder.readlink(), folder]
        elif folder.is_dir():
            command += ["--ro-bind", folder, folder]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if python.prefix is not None:
        command += ["--ro-bind", python.prefix, python.prefix]
    command += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(4 * limits.file_mib * MIB), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return tuple(map(str, command))


@cache
def _inside(python: _Python, limits: Limits) -> tuple[str, ...]:
    """The command inside, where limits are set: only there does that on processes count those of the sandbox alone."""
    cpu = limits.cpu_seconds
    resources = {
        "cpu": f"{cpu}:{cpu + 1}",  # SIGXCPU, then SIGKILL
        "as": limits.memory_mib * MIB,
        "nproc": limits.processes + 1,
        "fsize": limits.file_mib * MIB,
        "nofile": limits.files,
        "core": 0,
    }
    flags = [f"--{name}={value}" for name, value in resources.items()]
    first = Path(sandboxed.__file__).read_text()
    return (_tool("prlimit"), *flags, "--", str(python.path), "-PsSB", "-c", first, PROGRAM)


def _run(python: _Python, job: Job, limits: Limits) -> list[Result]:
    program, inputs = job
    deadline = time.monotonic() + limits.wall_seconds
    with ExitStack() as stack:
        source = _memory_file(stack, program)
        texts = [_memory_file(stack, text) for text in inputs]
        status, report, stderr = (_Pipe(stack, _REPORT) for _ in range(3))
        outputs = [_Pipe(stack, limits.output_bytes) for _ in inputs]
        pipes = (status, report, stderr, *outputs)
        ends = [text.fileno() for text in texts] + [output.fileno() for output in outputs]
        process = subprocess.Popen(
            [
                *_outside(python, limits),
                *("--json-status-fd", str(status.fileno())),
                *("--ro-bind-data", str(source.fileno()), PROGRAM),
                *("--remount-ro", "/"),
                *_inside(python, limits),
                *map(str, (int(signal.SIGXCPU), report.fileno(), *ends)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr.fileno(),
            pass_fds=[source.fileno(), status.fileno(), report.fileno(), *ends],
            env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
        )
        with process:
            try:
                reached = _watch(process, pipes, outputs, deadline)
            finally:
                process.kill()  # and with it, by --die-with-parent, all that it started
    if reached is None and b'"exit-code"' not in status.data:
        said = stderr.data.decode(errors="replace").strip()
        raise UserError(f"bwrap: {said or f'ended with status {process.returncode}'}")
    codes, errors = _read_report(bytes(report.data))
    results: list[Result] = []
    for number, output in enumerate(outputs):
        error = errors.get(number, "")
        if output.over:
            ended: Status = "output_limit"
        elif number in codes:
            ended = _ended(codes[number], error)
        else:
            ended = reached or (results[-1].status if results else "error")
        results.append(_result(ended, bytes(output.data), error))
    return results


class _Pipe:
    """A pipe, and the first `limit` bytes that came through it; `over` says whether there were more."""

    def __init__(self, stack: ExitStack, limit: int) -> None:
        source, end = os.pipe()
        self.source = stack.enter_context(os.fdopen(source, "rb", buffering=0))
        self.end = stack.enter_context(os.fdopen(end, "wb", buffering=0))
        self.limit = limit
        self.data = bytearray()
        self.over = False

    def fileno(self) -> int:
        """The descriptor of the end that is written to."""
        return self.end.fileno()

    def read(self) -> bool:
        """Read once; whether that was not the end."""
        chunk = self.source.read(_CHUNK)
        self.data += chunk
        self.over |= len(self.data) > self.limit
        del self.data[self.limit :]
        return bool(chunk)


def _memory_file(stack: ExitStack, text: str) -> IO[bytes]:
    """A file that holds the text, has no place on a disk, and is at its start."""
    file = stack.enter_context(os.fdopen(os.memfd_create("text"), "w+b"))
    file.write(text.encode(errors="replace"))
    file.flush()
    file.seek(0)
    return file


def _watch(
    process: subprocess.Popen[bytes],
    pipes: Sequence[_Pipe],
    outputs: Sequence[_Pipe],
    deadline: float,
) -> Status | None:
    """Read from the pipes until the process ends, or reaches the limit that is returned."""
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            pipe.end.close()
            selector.register(pipe.source, selectors.EVENT_READ, pipe)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                if not key.data.read():
                    selector.unregister(key.fileobj)
            if time.monotonic() >= deadline:
                return "timeout"
            if any(output.over for output in outputs):
                return "output_limit"
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "timeout"
    return None


def _read_report(report: bytes) -> tuple[dict[int, int], dict[int, str]]:
    """Exit statuses and exceptions by the number of the input. Lines in another form are the program's, and left out."""
    codes: dict[int, int] = {}
    errors: dict[int, str] = {}
    for line in report.decode(errors="replace").splitlines():
        if found := _REPORTED.fullmatch(line):
            number, code, error = found.groups()
            if code:
                codes[int(number)] = int(code)
            else:
                errors[int(number)] = error
    return codes, errors


def _ended(code: int, error: str) -> Status:
    if code == 0:
        return "ok"
    if code == -signal.SIGXCPU:
        return "timeout"
    return "memory" if error.startswith("MemoryError") else "error"


def _result(status: Status, stdout: bytes, error: str) -> Result:
    try:
        return Result(status, stdout.decode(), error)
    except UnicodeDecodeError:
        ended: Status = "not_text" if status == "ok" else status
        return Result(ended, stdout.decode(errors="replace"), error)

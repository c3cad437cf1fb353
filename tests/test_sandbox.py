"""Programs in the sandbox: what they may do, and the attacks that they may try."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from needs import need_sandbox

from posttrain.core.errors import UserError
from posttrain.tasks import sandbox
from posttrain.tasks.sandbox import Limits, Result, run, run_all

LIMITS = Limits(cpu_seconds=1, wall_seconds=15)
SHORT = Limits(cpu_seconds=1, wall_seconds=1.5)


@pytest.fixture(scope="module", autouse=True)
def _works() -> None:
    need_sandbox()


def lines(program: str, stdin: str = "") -> list[str]:
    found = run(program, stdin, LIMITS)
    assert found.status == "ok", found
    return found.stdout.splitlines()


# ---------------------------------------------------------------------------- programs


def test_a_program_reads_stdin_and_prints() -> None:
    assert run("print(input()[::-1], input())", "abc\nü\n") == Result("ok", "cba ü\n", "")


def test_it_has_the_standard_library_and_is_main() -> None:
    program = """
import collections, dataclasses, math, re
@dataclasses.dataclass
class Point:
    x: int
if __name__ == "__main__":
    print(Point(math.comb(5, 2)), re.findall("a", "banana"))
"""
    assert lines(program) == ["Point(x=10) ['a', 'a', 'a']"]


def test_each_input_has_a_process_of_its_own() -> None:
    program = (
        "import builtins\nbuiltins.seen = getattr(builtins, 'seen', 0) + 1\nprint(seen, input())"
    )
    ((first, second),) = run_all([(program, ["a", "b"])])
    assert (first.stdout, second.stdout) == ("1 a\n", "1 b\n")


def test_many_programs_at_a_time_keep_their_order() -> None:
    jobs = [("print(int(input()) ** 2)", [str(number), "1"]) for number in range(6)]
    found = run_all(jobs, LIMITS, workers=3)
    assert [[result.stdout for result in results] for results in found] == [
        [f"{number**2}\n", "1\n"] for number in range(6)
    ]


def test_the_order_of_a_set_does_not_vary() -> None:
    program = "print({f'{n}' for n in range(20)}, hash('a'))"
    assert run(program, "") == run(program, "")


@pytest.mark.parametrize(
    ("program", "status", "error"),
    [
        ("a b", "error", "SyntaxError"),
        ("print(1 / 0)", "error", "ZeroDivisionError"),
        ("input(); input()", "error", "EOFError"),
        ("print('x'); raise SystemExit(3)", "error", ""),
        ("print('x'); raise SystemExit", "ok", ""),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "not_text", ""),
        ("print('\\ud800')", "error", "UnicodeEncodeError"),
        ("x = 'a\0b'", "error", "ValueError"),
        ("x = '\ud800'", "ok", ""),
        ("", "ok", ""),
    ],
)
def test_how_programs_end(program: str, status: str, error: str) -> None:
    found = run(program, "one line\n", LIMITS)
    assert found.status == status
    assert found.error.partition(":")[0] == error


def test_a_limit_on_time_counts_for_the_inputs_after_it() -> None:
    program = "n = int(input())\nprint(n)\nwhile n == 1: pass"
    start = time.monotonic()
    ((fine, slow, not_tried),) = run_all([(program, ["0", "1", "0"])], LIMITS)
    assert (fine.status, slow.status, not_tried.status) == ("ok", "timeout", "timeout")
    assert not_tried.stdout == ""
    assert time.monotonic() - start < LIMITS.wall_seconds


def test_what_it_leaves_running_ends_with_it() -> None:
    program = """
import os, time
if os.fork() == 0:
    time.sleep(60)
print("done")
"""
    start = time.monotonic()
    assert lines(program) == ["done"]
    assert time.monotonic() - start < 10


# ---------------------------------------------------------------------------- the fifteen attacks


@pytest.mark.parametrize("place", ["/root", "/etc/passwd", "/home", str(Path.cwd())])
def test_attacks_1_and_2_files_of_the_machine(place: str) -> None:
    found = run(f"import os; print(os.stat({place!r}))", "", LIMITS)
    assert (found.status, found.error[:17]) == ("error", "FileNotFoundError")


@pytest.mark.parametrize("place", ["/usr/x", "/x", "/dev/shm/x", "/proc/sys/kernel/hostname"])
def test_attack_3_writing_to_the_system(place: str) -> None:
    found = run(f"open({place!r}, 'w').write('x')", "", LIMITS)
    assert found.status == "error"
    assert "Read-only" in found.error or "Permission denied" in found.error
    assert not Path("/usr/x").exists()


PROCESSES = "[int(name) for name in os.listdir('/proc') if name.isdigit()]"


def test_attack_4_seeing_other_processes() -> None:
    (found,) = lines(f"import os; print(len({PROCESSES}))")
    assert int(found) <= 3  # bwrap's first process, ours, and the program's


def test_attack_5_ending_or_tracing_other_processes() -> None:
    program = f"""
import ctypes, os
try:
    os.kill({os.getpid()}, 9)
except ProcessLookupError:
    print("no such process")
print(ctypes.CDLL(None).ptrace(16, {os.getpid()}, 0, 0))
"""
    assert lines(program) == ["no such process", "-1"]


def test_attack_6_network_interfaces() -> None:
    assert lines("import socket; print([name for _, name in socket.if_nameindex()])") == ["['lo']"]


def test_attack_7_connecting_to_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        assert run(program, "", LIMITS).error.startswith("ConnectionRefusedError")


def test_attack_8_two_gigabytes_of_memory() -> None:
    assert run("x = bytearray(2 << 30)", "", LIMITS).status == "memory"


def test_attack_9_an_endless_loop() -> None:
    assert run("print('begun', flush=True)\nwhile True: pass", "", LIMITS) == Result(
        "timeout", "begun\n", ""
    )


def test_attack_10_sleeping() -> None:
    start = time.monotonic()
    program = "import os, time; os.close(1); os.close(2); time.sleep(60)"
    assert run(program, "", SHORT).status == "timeout"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_attack_11_gigabytes_of_output(stream: str) -> None:
    found = run(f"import sys\nwhile True: sys.{stream}.write('x' * 65536)", "", LIMITS)
    assert found.status == ("output_limit" if stream == "stdout" else "timeout")
    assert len(found.stdout) <= LIMITS.output_bytes


def test_attack_12_filling_the_disk() -> None:
    program = """
for number in range(100):
    with open(f"/tmp/{number}", "wb") as file:
        for _ in range(15):
            file.write(bytes(1 << 20))
"""
    assert "No space left" in run(program, "", LIMITS).error
    found = run("open('/tmp/x', 'wb').write(bytes(100 << 20))", "", LIMITS)
    assert found.status == "error"


def test_attack_13_a_fork_bomb() -> None:
    program = """
import os, time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except BlockingIOError:
    print(count)
"""
    (count,) = lines(program)
    assert int(count) < LIMITS.processes
    assert run("import os\nwhile True: os.fork()", "", SHORT).status in ("error", "timeout")


def test_attack_14_more_rights() -> None:
    program = """
import ctypes, os
libc = ctypes.CDLL(None)
print(os.getuid() != 0, libc.setuid(0), libc.unshare(0x10000000))
print(libc.mount(b"a", b"/tmp", b"tmpfs", 0, 0))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
print(int(status["CapEff"], 16), int(status["CapBnd"], 16), int(status["NoNewPrivs"]))
"""
    assert lines(program) == ["True -1 -1", "-1", "0 0 1"]


def test_attack_15_secrets_and_open_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    (tmp_path / "secret").write_text("secret")
    with (tmp_path / "secret").open() as file:
        os.set_inheritable(file.fileno(), True)
        program = """
import os
print("TOKEN" in os.environ)
for name in os.listdir("/proc/self/fd"):
    try:
        print(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
    except FileNotFoundError:
        pass
"""
        first, *open_files = lines(program)
    assert first == "False"
    assert {*open_files} <= {"/memfd", "pipe", "/dev/null", "/proc/2/fd", "/proc/3/fd"}


def test_lines_that_it_writes_into_the_report_break_nothing() -> None:
    program = """
import os
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"9999999999 5\\n[[[[\\n0 0\\n\\xff 7\\n3\\n")
    except OSError:
        pass
os.kill(os.getppid(), 9)
"""
    assert run(program, "", LIMITS).status in ("ok", "error", "not_text")


# ---------------------------------------------------------------------------- without bwrap


def test_without_bwrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bwrap" else real(name))
    sandbox._interpreter.cache_clear()
    with pytest.raises(UserError, match=r"^bwrap is not installed.* apt install bubblewrap$"):
        run("print(1)", "")


def test_a_bwrap_that_may_make_no_namespaces_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(sandbox, "_tool", lambda name: str(fake) if name == "bwrap" else name)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    sandbox._interpreter.cache_clear()
    sandbox._outside.cache_clear()
    try:
        with pytest.raises(UserError, match="No permissions to create new namespace"):
            run("print(1)", "")
    finally:
        sandbox._outside.cache_clear()


def test_the_text_of_the_first_process_needs_no_project() -> None:
    text = Path(sandbox.sandboxed.__file__).read_text()
    command = [sys.executable, "-I", "-S", "-c", text, "/none", "24", "1"]
    assert subprocess.run(command, cwd="/", env={}, check=True, capture_output=True).stdout == b""

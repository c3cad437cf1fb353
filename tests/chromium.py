"""A headless Chromium for tests of pages."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Chromium:
    """A headless Chromium, driven over the pipe of its DevTools protocol.

    `problems` collects errors and warnings of the console, exceptions and dialogs.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.problems: list[Any] = []
        self.sent = 0
        pipes = folder / "in", folder / "out"
        for pipe in pipes:
            os.mkfifo(pipe)
        # `timeout` ends a browser that hangs, and so closes the pipe.
        command = ["timeout", "120", program, "--headless=new", "--no-sandbox", "--disable-gpu"]
        command += ["--remote-debugging-pipe", "--window-size=1400,900"]
        command += [f"--user-data-dir={folder / 'profile'}"]
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" 3<"{pipes[0]}" 4>"{pipes[1]}"', "sh", *command],
            stderr=subprocess.DEVNULL,
        )
        self.commands, self.answers = pipes[0].open("wb"), pipes[1].open("rb")
        self.session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params, **self.session}
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while (answer := self.receive()).get("id") != self.sent:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def receive(self) -> dict[str, Any]:
        raw = b""
        while not raw.endswith(b"\0"):
            byte = self.answers.read(1)
            assert byte, "the browser has ended"
            raw += byte
        message: dict[str, Any] = json.loads(raw[:-1])
        method, params = message.get("method"), message.get("params", {})
        if (
            method in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening")
            or (method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
            or (method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"))
        ):
            self.problems.append(params)
        return message

    def open(self, address: str) -> None:
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        while not self.run("document.readyState === 'complete' && location.href !== 'about:blank'"):
            pass

    def run(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def filter(self, name: str, value: str) -> int:
        """Set one filter like a user; returns the number of questions listed then."""
        self.run(
            f"{{ const box = document.getElementById({name!r}); box.value = {value!r}; "
            "box.dispatchEvent(new Event('input')); }"
        )
        return int(self.run("document.querySelectorAll('#list li').length"))

    def close(self) -> None:
        self.commands.close()
        self.answers.close()
        self.process.wait()

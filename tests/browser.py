"""A headless Chromium, driven by the DevTools protocol over a pipe: no port, no package."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


class Browser:
    """One page at a time. Use as a context manager."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        ours, self._answers = os.pipe(), os.pipe()
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        )
        command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        wrapped = ["bash", "-c", f'exec "$@" 3<&{ours[0]} 4>&{self._answers[1]}', "bash", *command]
        quiet = subprocess.DEVNULL
        kept = (ours[0], self._answers[1])
        self._process = subprocess.Popen(wrapped, pass_fds=kept, stdin=quiet, stdout=quiet, stderr=quiet)
        for end in kept:
            os.close(end)
        self._commands = os.fdopen(ours[1], "wb")
        self._reader = os.fdopen(self._answers[0], "rb")
        self._numbers = itertools.count(1)
        self.errors: list[str] = []  # exceptions of scripts
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        self._reader.close()
        self._process.terminate()
        self._process.wait()

    def open(self, path: Path, width: int, height: int = 800, *, dark: bool = False) -> None:
        """Load a file in a window of this size and wait for it."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        ready = (
            "new Promise(done => document.readyState == 'complete' ? done(1) : addEventListener('load', () => done(1)))"
        )
        while self.run("location.protocol") != "file:":
            pass
        self.run(ready)

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """A command to the page."""
        return self._send(method, session=self._session, **values)

    def _send(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values} | ({"sessionId": session} if session else {})
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._receive()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> Any:
        text = bytearray()
        while (letter := self._reader.read(1)) != b"\0":
            assert letter, "the browser has ended"
            text += letter
        return json.loads(text)

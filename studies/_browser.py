"""A headless Chromium that is driven as a person would: real keys, real clicks, downloads and screenshots.

It speaks the DevTools protocol over a pipe, which Chromium brings along; no driver and no package is needed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip
# Chromium reads from descriptor 3 and writes to 4.
START = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(reads, 3), os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
CODES = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Home": 36, "End": 35, "Tab": 9}
SECONDS = 60  # until an answer has to be there


class Browser(contextlib.AbstractContextManager):
    """One page in a Chromium of its own, whose profile is gone afterwards.

    console: what the page has said there, errors of its scripts and of its policy included; downloads: the folder into
    which the page's downloads go.
    """

    def __init__(self, width: int = 1200, height: int = 900, *options: str):
        self.console: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="browser_")
        self.downloads = Path(self._folder.name, "downloads")
        self.downloads.mkdir()
        self._number, self._buffer, self._session = 0, b"", None
        ours, theirs = os.pipe(), os.pipe()  # (Chromium reads, we write), (we read, Chromium writes)
        self._write, self._read = ours[1], theirs[0]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(ours[0]), str(theirs[1]), CHROMIUM, *OPTIONS, *options]
            + [f"--user-data-dir={self._folder.name}/profile", "about:blank"],
            pass_fds=(ours[0], theirs[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours[0])
        os.close(theirs[1])
        page = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.size(width, height)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.close(self._write)
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        with contextlib.suppress(OSError):  # a child of Chromium may still be writing into its profile
            self._folder.cleanup()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol; RuntimeError where it is an error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        """The next message; events that say something of errors are kept."""
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], SECONDS)[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.console.append(json.dumps(message["params"]))
        return message

    def open(self, file: Path) -> None:
        """Load a file; returns when the page has run its scripts."""
        self.ask("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete'")
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, promises awaited; RuntimeError where it throws."""
        of = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in of:
            raise RuntimeError(json.dumps(of["exceptionDetails"])[:1000])
        return of["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until the JavaScript expression is true; TimeoutError after SECONDS."""
        end = time.monotonic() + SECONDS
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {condition}")
            time.sleep(0.02)

    def size(self, width: int, height: int, phone: bool = False) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def prefer(self, **features: str) -> None:
        """Media features by name, "_" for "-": prefer(prefers_color_scheme="dark")."""
        of = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=of)

    def press(self, key: str, ctrl: bool = False) -> None:
        """One key, down and up."""
        code = CODES.get(key, ord(key.upper()) if len(key) == 1 else 0)
        of = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 2 * ctrl}
        text = {"text": key} if len(key) == 1 and not ctrl else {}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **of, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **of)

    def click(self, selector: str) -> None:
        """The middle of the first element that the CSS selector names, brought into view."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, element: str, value: str) -> None:
        """An option of the select element with this id."""
        self.run(
            f"(() => {{ const e = document.getElementById({json.dumps(element)}); e.value = {json.dumps(value)};"
            "e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def downloaded(self) -> Path:
        """The one file in `downloads`, once it is whole; TimeoutError where none comes."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            files = [f for f in self.downloads.iterdir() if f.suffix != ".crdownload"]
            if files and not list(self.downloads.glob("*.crdownload")):
                return files[0]
            self.run("0")
            time.sleep(0.05)
        raise TimeoutError("nothing was downloaded")

    def screenshot(self, file: Path, whole: bool = False) -> None:
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

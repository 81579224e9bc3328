"""``browser``: a headless Chromium over its DevTools pipe (file descriptors 3 and 4, messages end with NUL), without any package."""

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-extensions", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--mute-audio", "--remote-debugging-pipe",
)  # fmt: skip
LAUNCH = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


class Browser:
    """One page of one Chromium. Every answer is waited for at most ``patience`` seconds, then a TimeoutError tells what was asked."""

    def __init__(self, program: str, folder: Path, patience: float = 120.0) -> None:
        self.patience, self.number, self.rest, self.events = patience, 0, b"", []
        inside, self.to = os.pipe()
        self.back, outside = os.pipe()
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(inside), str(outside), program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
                pass_fds=(inside, outside), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.close(inside)
        os.close(outside)
        self.session = ""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.to)
        os.close(self.back)

    def ask(self, method: str, **parameters):
        """Call a method of the protocol, return its result; events meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        until = time.monotonic() + self.patience
        while (answer := self._read(until, method)).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self, until: float, what: str) -> dict:
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], max(until - time.monotonic(), 0.0))[0]:
                raise TimeoutError(f"Chromium did not answer {what} in {self.patience} s")
            got = os.read(self.back, 1 << 20)
            if not got:
                raise RuntimeError(f"Chromium ended while it did {what}")
            self.rest += got
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def open(self, path: Path, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
        """Load a file at a width, in light or dark, on screen or paper, until it stands."""
        self.emulate(width, scheme, media)
        self.events = []
        wrong = self.ask("Page.navigate", url=path.resolve().as_uri()).get("errorText")
        assert not wrong, wrong
        until = time.monotonic() + self.patience
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read(until, f"load {path}"))
        self.script("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")

    def emulate(self, width: int, scheme: str = "light", media: str = "screen") -> None:
        """The width in CSS pixels, the colours that the reader prefers, screen or paper."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def script(self, code: str):
        """The value of an expression in the page."""
        result = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def audit(self) -> dict[str, list[str]]:
        """What audit.js finds wrong, by kind."""
        return self.script(AUDIT)

    def complaints(self, path: Path) -> list[str]:
        """Console messages, exceptions, dialogs, and requests for anything but the file itself."""
        own, out = path.resolve().as_uri(), []
        for event in self.events:
            method, given = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("data:", own)):
                out.append(f"asks for {given['request']['url']}")
            elif method == "Log.entryAdded":
                out.append(f"logs {given['entry']['text']}")
            elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"):
                out.append(f"{method}: {json.dumps(given)[:300]}")
        return out

    def press(self, key: str = "Tab") -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def picture(self, path: Path, longest: int = 16_000) -> Path:
        """A screenshot of the whole page."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], longest), "scale": 1}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]))
        return path

    def paper(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A :class:`Browser`, or a skip where no Chromium is installed."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed ({', '.join(NAMES)})")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()

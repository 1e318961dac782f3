"""A headless Chromium that is driven through a pipe, by its own protocol (CDP): clicks, keys, pictures, complaints."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "End": 35}


class Browser:
    """One page."""

    def __init__(self, to: Any, back: Any):
        self._to, self._back, self._numbers, self._session = to, back, itertools.count(1), {}
        self.complaints: list[str] = []  # exceptions, errors of the console, refusals of the page's policy
        self.requests: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._to.write(json.dumps({"id": number, "method": method, "params": params} | self._session).encode() + b"\0")
        self._to.flush()
        while (message := self._read()).get("id") != number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._back.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser has ended")
            text += byte
        return json.loads(text)

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.until("document.documentElement.dataset.ready === 'yes'")

    def js(self, expression: str) -> Any:
        """The value of an expression, awaited."""
        done = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{expression}: {done['exceptionDetails']['exception']['description']}")
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits in the page, frame by frame; what never comes is ended by the test's own time limit."""
        tick = f"() => {{ try {{ if ({condition}) return resolve(true) }} catch {{}} setTimeout(tick, 20) }}"
        if not self.js(
            f"new Promise(resolve => {{ const end = setTimeout(() => resolve(false), 300000); const tick = {tick}; tick() }})"
        ):
            raise AssertionError(f"never: {condition}")

    def click(self, selector: str) -> None:
        """A click of the mouse into the middle of the first such element."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.until(f"{place}.getClientRects().length")
        box = self.js(
            f"{place}.scrollIntoView({{block: 'nearest'}}), (b => [b.x + b.width / 2, b.y + b.height / 2])({place}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, *keys: str) -> None:
        for key in keys:
            known = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
            self.send("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": key} if len(key) == 1 else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **known)

    def text(self, selector: str) -> str:
        return self.js(f"document.querySelector({json.dumps(selector)}).innerText")

    def size(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Chromium with a fresh profile; it ends with the block."""
    assert BROWSER is not None
    read_ours, write_theirs = os.pipe()
    read_theirs, write_ours = os.pipe()
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # It reads descriptor 3 and writes descriptor 4.
    shell = f'exec "$0" "$@" 3<&{read_theirs} 4>&{write_theirs}'
    process = subprocess.Popen(
        ["bash", "-c", shell, BROWSER, *flags],
        pass_fds=(read_theirs, write_theirs),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_theirs)
    os.close(write_theirs)
    with open(write_ours, "wb") as to, open(read_ours, "rb") as back:
        try:
            yield Browser(to, back)
        finally:
            process.kill()
            process.wait()

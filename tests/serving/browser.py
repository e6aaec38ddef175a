"""Drives headless Chromium through its DevTools protocol, with nothing but a websocket."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path
    from types import TracebackType

WAIT_S = 60
ALT, CONTROL, META, SHIFT = 1, 2, 4, 8
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CODES = {
    "Tab": 9,
    "Enter": 13,
    "Escape": 27,
    " ": 32,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
# Looks again at every change of the page, not every so often.
UNTIL = """new Promise((resolve, reject) => {
  const end = (how, what) => { observer.disconnect(); clearTimeout(timer);
    document.removeEventListener("readystatechange", look); how(what); };
  const look = () => { const found = (() => (%(test)s))(); if (found) end(resolve, found); };
  const observer = new MutationObserver(look);
  const timer = setTimeout(() => end(reject, new Error(
    %(shown)s + " never came; the page says:\\n" + document.body.innerText)), %(ms)d);
  observer.observe(document, { subtree: true, childList: true, attributes: true,
    characterData: true });
  document.addEventListener("readystatechange", look);
  look();
})"""


def chromium() -> str | None:
    """The path of Chromium, where it is installed."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """Chromium as a process; every page has a profile of its own."""

    def __init__(self, path: str, profile: Path) -> None:
        self._path, self._profile = path, profile
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        """Everything that it told by itself."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                *(self._path, "--headless=new", "--no-sandbox", "--remote-debugging-port=0"),
                *("--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *(f"--user-data-dir={self._profile}", "about:blank"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._run(self._connect(self._address()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.call("Browser.close")
            self._run(self._session.close())
            self._process.wait(WAIT_S)
        finally:
            self._process.kill()
            self._loop.close()

    def page(self, url: str, width: int = 1280, height: int = 800, **media: str) -> Page:
        """Opens a page in a fresh profile.

        `media` are features such as `prefers_color_scheme="dark"`.
        """
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, attached["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        features = [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items()
        ]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.open(url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command; returns its result."""
        return self._run(self._call(method, session, parameters))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, WAIT_S))

    def _address(self) -> str:
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                return found[1]
        raise AssertionError(f"Chromium ended with {self._process.wait()}: {''.join(lines)}")

    async def _connect(self, address: str) -> None:
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(address, max_msg_size=0)

    async def _call(
        self, method: str, session: str | None, parameters: dict[str, Any]
    ) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(
            message if session is None else message | {"sessionId": session}
        )
        while True:
            told = await self._socket.receive_json()
            if told.get("id") != number:
                self.events.append(told)
                continue
            if "error" in told:
                raise RuntimeError(f"{method}: {told['error']['message']}")
            result: dict[str, Any] = told["result"]
            return result


class Page:
    """One page: what a person does with it, and what they see."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command to this page."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Goes to an address, and waits until the page is loaded."""
        failure = self.call("Page.navigate", url=url).get("errorText")
        assert not failure, failure
        # The page of before may still answer, so it is asked for its address too.
        loaded = f"document.readyState === 'complete' && location.href === {json.dumps(url)}"
        self.until(loaded)

    def run(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details["text"]
            raise AssertionError(text)
        return told["result"].get("value")

    def until(self, test: str) -> Any:
        """Waits until an expression is true on the page; returns its value."""
        ms = (WAIT_S - 10) * 1000
        return self.run(UNTIL % {"test": test, "shown": json.dumps(test), "ms": ms})

    def text(self, selector: str) -> str:
        """What is seen of an element."""
        text: str = self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return text

    def seen(self, selector: str) -> bool:
        """Whether an element is seen."""
        found: bool = self.run(f"document.querySelector({json.dumps(selector)}).checkVisibility()")
        return found

    def focused(self) -> str:
        """The id of the element with the focus."""
        name: str = self.run("document.activeElement.id")
        return name

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key such as "Tab" or "Enter"."""
        code = CODES.get(key, ord(key[0].upper()))
        about = {"key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        text = {"Enter": "\r", " ": " "}.get(key)
        written = {"text": text} if text and not modifiers & ~SHIFT else {}
        kind = "keyDown" if written else "rawKeyDown"
        self.call("Input.dispatchKeyEvent", type=kind, **about, **written)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str) -> None:
        """Clicks the middle of an element."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **at)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **at)

    def resize(self, width: int, height: int) -> None:
        """Gives the page a size, a phone's below 600 pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def offline(self) -> None:
        """Cuts the network."""
        self.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Writes a PNG of what is seen, or of the whole page."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def complaints(self) -> list[str]:
        """What stands in the console: errors, warnings, and what the policy refused."""
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            parameters = event.get("params", {})
            if event["method"] == "Log.entryAdded" and parameters["entry"]["level"] != "info":
                found.append(parameters["entry"]["text"])
            if event["method"] == "Runtime.exceptionThrown":
                found.append(parameters["exceptionDetails"]["exception"]["description"])
            if event["method"] == "Runtime.consoleAPICalled":
                found.append(" ".join(str(each.get("value")) for each in parameters["args"]))
        return found

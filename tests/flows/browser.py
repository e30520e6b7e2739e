"""A page in headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_S = 120


@dataclass
class Page:
    """An open page; `events` are all that the browser has told since."""

    connection: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    calls: int = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.calls += 1
        self.connection.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.connection.recv(timeout=PATIENCE_S))
            if message.get("id") == self.calls:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def value(self, expression: str) -> Any:
        """Of JavaScript; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits in the page, frame by frame, until the JavaScript `condition` is true."""
        limit = 1000 * PATIENCE_S
        self.value(
            "new Promise((found, lost) => { const start = performance.now(), look = () => "
            f"({condition}) ? found(true) : performance.now() - start > {limit} ? lost(Error('never true')) "
            ": setTimeout(look, 20); look(); })"
        )

    def troubles(self) -> list[dict[str, Any]]:
        """Exceptions, errors of the browser, such as a breach of the page's policy, and what the console shows."""
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        errors = [
            e for e in self.events if e["method"] == "Log.entryAdded" and e["params"]["entry"]["level"] == "error"
        ]
        return errors + [event for event in self.events if event["method"] in told]

    def requests(self) -> list[str]:
        """Addresses that the page has asked for, itself included; what it holds as data: needs no request."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls if not url.startswith("data:")]


@contextmanager
def opened(url: str, profile: Path, width: int = 1400, height: int = 900) -> Iterator[Page]:
    """The page of `url` in a browser of its own that keeps its files in `profile`; the test is skipped without one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed: the report's page is tested in a real browser")
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader")
    places = ("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank")
    with subprocess.Popen([program, *options, *places], stderr=subprocess.PIPE, text=True) as browser:
        try:
            assert browser.stderr is not None
            told = []
            for line in browser.stderr:
                told.append(line)
                if "DevTools listening" in line:
                    break
            found = re.search(r"DevTools listening on ws://([\d.:]+)/", "".join(told))
            assert found is not None, told
            with urllib.request.urlopen(f"http://{found[1]}/json", timeout=PATIENCE_S) as answer:
                tabs = json.load(answer)
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(address, max_size=None, open_timeout=PATIENCE_S) as connection:
                page = Page(connection)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    page.call(f"{domain}.enable")
                size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
                page.call("Emulation.setDeviceMetricsOverride", **size)
                page.call("Page.navigate", url=url)
                yield page
        finally:
            browser.terminate()

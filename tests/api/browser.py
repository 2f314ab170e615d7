"""Pages as tests see them: their text, or in headless Chromium, told what to do through a pipe (Chrome DevTools Protocol), which needs no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lab import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"]


class Browser:
    """One tab. complaints are what the page or its security policy wrote to the console."""

    def __init__(self, directory: Path) -> None:
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()
        words = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "chromium", str(CHROMIUM), *FLAGS, f"--user-data-dir={directory}", "about:blank"]
        self.process = subprocess.Popen(words, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.read, self.session, self.complaints = 0, b"", "", list[str]()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self._note(answer)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.read:
            more = os.read(self.into, 1 << 16)
            assert more, "Chromium has ended"
            self.read += more
        message, _, self.read = self.read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"):
            case "Log.entryAdded" if event["params"]["entry"]["level"] == "error":
                self.complaints.append(event["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(event["params"]["exceptionDetails"]["text"])

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script: str) -> Any:
        """Its value, as JSON has it."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Until it is true, on whatever page is there then."""
        wait_until(lambda: self.evaluate(f"Boolean({script})"), 60)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            codes = {"Tab": 9, "Enter": 13}
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key], **text)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)


class Html(HTMLParser):
    """Controls by name, labels by what they are for, and the text of elements with an id, which contain no others of their own kind."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.controls, self.labels = defaultdict[str, list[dict[str, Any]]](list), set[str]()
        self.texts, self.open, self.choosing = defaultdict[str, str](str), list[tuple[str, str]](), ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        if found.get("name") and tag in ("input", "select", "textarea"):
            self.controls[found["name"]].append({"tag": tag} | found)
            self.choosing = found["name"]
        if tag == "option" and "selected" in found:
            self.controls[self.choosing][-1]["chosen"] = found.get("value")
        if tag == "label":
            self.labels.add(found.get("for", ""))
        if "id" in found and tag not in ("input", "img", "rect", "circle", "line", "polyline"):
            self.open.append((tag, found["id"]))

    def handle_data(self, data: str) -> None:
        for _, name in self.open:
            self.texts[name] += data

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

"""Headless Chromium through the pipes of its DevTools: no port, no package."""
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

import common

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu",
         "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage", "--disable-extensions",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--force-color-profile=srgb")
KEYS = {"Tab": 9, "Escape": 27, "End": 35, "ArrowRight": 39}


def program():
    """Path of a browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def pipe():
    """Both ends with numbers that are free for what the browser expects at 3 and 4."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Page:
    """One page of a browser of its own, for the length of a `with`. `events` has everything that
    the page reported: console messages, exceptions, requests."""

    def __init__(self, folder, timeout=60):
        self.folder, self.timeout = pathlib.Path(folder), timeout
        self.events, self.answers, self.n_sent, self.rest = [], {}, 0, b""

    def __enter__(self):
        down, self.to = pipe()    # commands, which the browser reads from 3
        self.source, up = pipe()  # answers, which it writes to 4
        self.process = subprocess.Popen(
            [program(), *FLAGS, f"--user-data-dir={self.folder / 'profile'}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=common.environment({"HOME": self.folder}), close_fds=False,
            preexec_fn=lambda: (os.dup2(down, 3), os.dup2(up, 4)))
        os.close(down)
        os.close(up)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *unused):
        os.close(self.to)  # the browser ends when nobody talks to it
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.source)

    def pump(self, until):
        """Reads messages until there is what `until` looks for."""
        end = time.monotonic() + self.timeout
        while (found := until()) is None:
            ready, _, _ = select.select([self.source], [], [], max(0, end - time.monotonic()))
            data = os.read(self.source, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError(f"the browser says nothing: {self.events[-3:]}")
            *messages, self.rest = (self.rest + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self.answers[message["id"]] = message
                else:
                    self.events.append((message["method"], message["params"]))
        return found

    def call(self, method, **params):
        self.n_sent += 1
        message = {"id": self.n_sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        answer = self.pump(lambda: self.answers.pop(message["id"], None))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait(self, method):
        return self.pump(lambda: next((p for m, p in self.events if m == method), None))

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
        self.wait("Page.loadEventFired")

    def value(self, expression):
        """Of an expression in the page, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True, userGesture=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def count(self, selector):
        return self.value(f"document.querySelectorAll({json.dumps(selector)}).length")

    def text(self, selector):
        return self.value(f"document.querySelector({json.dumps(selector)}).textContent")

    def look(self, width, height=900, scheme="light", media="", is_phone=False):
        """Sets what the page is seen with, and lets it draw itself again."""
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=is_phone)
        frame = "new Promise((go) => requestAnimationFrame(() => go(0)))"
        self.value(f"{frame}.then(() => {frame})")

    def key(self, name):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode=KEYS[name])

    def point_at(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def downloads(self, button):
        """What a click on a button saves: the bytes of the file."""
        target = self.folder / "saved"
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(target))
        self.value(f"document.querySelector({json.dumps(button)}).click()")
        self.pump(lambda: next((p for m, p in self.events if m == "Page.downloadProgress" and
                                p["state"] == "completed"), None))
        return next(target.iterdir()).read_bytes()

    def picture(self, path):
        answer = self.call("Page.captureScreenshot", format="png")
        pathlib.Path(path).write_bytes(base64.b64decode(answer["data"]))

    def pdf(self):
        """The printed page."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])

    def complaints(self):
        """What went wrong: exceptions, errors and warnings of the console, and of the log."""
        bad = ("error", "warning", "assert")
        return [p for m, p in self.events if m == "Runtime.exceptionThrown" or
                (m == "Runtime.consoleAPICalled" and p["type"] in bad) or
                (m == "Log.entryAdded" and p["entry"]["level"] in bad)]

    def requests(self):
        return [p["request"]["url"] for m, p in self.events if m == "Network.requestWillBeSent"]

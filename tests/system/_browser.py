"""Headless Chromium through the pipes of its DevTools: no port, no package."""
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

import common

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def program():
    """Path of a browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser of its own, for the length of a `with`. `events` has everything that the page
    reported: console messages, exceptions, requests."""

    def __init__(self, folder, timeout=20):
        self.folder, self.timeout = pathlib.Path(folder), timeout
        self.events, self.answers, self.n_sent, self.rest = [], {}, 0, b""

    def __enter__(self):
        down, self.to = os.pipe()    # the browser reads commands from its descriptor 3
        self.source, up = os.pipe()  # and writes answers to its descriptor 4
        command = ["sh", "-c", f'exec "$@" 3<&{down} 4>&{up}', "sh", program(), "--headless=new", "--no-sandbox",
                   "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-dev-shm-usage",
                   "--disable-extensions", "--disable-background-networking", "--disable-component-update", "--disable-sync",
                   f"--user-data-dir={self.folder / 'profile'}", "--force-color-profile=srgb"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(down, up),
                                        stderr=subprocess.DEVNULL, env=common.environment({"HOME": self.folder}))
        os.close(down)
        os.close(up)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
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

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=pathlib.Path(path).absolute().as_uri())
        self.pump(lambda: next((e for e in self.events if e[0] == "Page.loadEventFired"), None))

    def value(self, expression):
        """Of an expression in the page, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def look(self, width, height=900, scheme="light", media="", scale=1, is_phone=False):
        """Sets what the page is seen with, and lets it draw itself again."""
        self.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone)
        self.value("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(() => go(0))))")

    def key(self, name):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name,
                      windowsVirtualKeyCode={"Tab": 9, "ArrowRight": 39, "Escape": 27, "End": 35}[name])

    def point_at(self, x, y):
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path, whole=False):
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole,
                           **({"clip": {**self.value("({x: 0, y: 0, width: innerWidth, height: document.documentElement.scrollHeight, "
                                                     "scale: 1})")}} if whole else {}))
        pathlib.Path(path).write_bytes(base64.b64decode(answer["data"]))

    def pdf(self, path):
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        pathlib.Path(path).write_bytes(base64.b64decode(answer["data"]))

    def complaints(self):
        """What went wrong: exceptions, errors and warnings of the console, and of the log."""
        bad = [p["exceptionDetails"] for m, p in self.events if m == "Runtime.exceptionThrown"]
        bad += [p for m, p in self.events if m == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning", "assert")]
        return bad + [p["entry"] for m, p in self.events if m == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning")]

    def requests(self):
        return [p["request"]["url"] for m, p in self.events if m == "Network.requestWillBeSent"]
